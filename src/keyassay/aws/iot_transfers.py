"""Certificate transfers in AWS IoT's words; what they mean is in ``keyassay.registry.transfers``."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import transfers


@operation("TransferCertificate")
def transfer_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    arn = transfers.offer(
        registry_of(request),
        actor_of(request),
        params["certificateId"],
        params["targetAwsAccount"],
        params.get("transferMessage"),
    )
    return {"transferredCertificateArn": arn}


@operation("AcceptCertificateTransfer")
def accept_certificate_transfer(request: Request, params: dict[str, Any]) -> None:
    transfers.accept(
        registry_of(request),
        actor_of(request),
        params["certificateId"],
        set_as_active=params.get("setAsActive", False),
    )


@operation("RejectCertificateTransfer")
def reject_certificate_transfer(request: Request, params: dict[str, Any]) -> None:
    transfers.reject(registry_of(request), actor_of(request), params["certificateId"], params.get("rejectReason"))


@operation("CancelCertificateTransfer")
def cancel_certificate_transfer(request: Request, params: dict[str, Any]) -> None:
    transfers.cancel(registry_of(request), actor_of(request), params["certificateId"])


@operation("ListOutgoingCertificates")
def list_outgoing_certificates(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = transfers.outgoing(
        registry_of(request),
        actor_of(request),
        token=params.get("marker"),
        size=params.get("pageSize"),
        ascending=params.get("ascendingOrder", False),
    )
    rows = (
        {
            "certificateArn": registry_of(request).arn(request.account_id, f"cert/{row['id']}"),
            "certificateId": row["id"],
            "transferredTo": row["transfer_target"],
            "transferDate": moment(row["transferred_at"]),
            "transferMessage": row["transfer_message"],
            "creationDate": moment(row["created_at"]),
        }
        for row in page.rows
    )
    return paged("outgoingCertificates", rows, page)
