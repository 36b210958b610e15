"""Device certificates in AWS IoT's words; what they mean is in ``keyassay.registry.certificates``."""

from __future__ import annotations

from collections.abc import Mapping
from ssl import DER_cert_to_PEM_cert
from typing import Any

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import certificates


def _answer(found: certificates.Registered) -> dict[str, Any]:
    return {"certificateArn": found.arn, "certificateId": found.id}


@operation("RegisterCertificate", shares=True)
def register_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    found = certificates.register(
        registry_of(request),
        actor_of(request),
        params["certificatePem"],
        authority_pem=params.get("caCertificatePem"),
        status=params.get("status"),
        set_as_active=params.get("setAsActive"),
    )
    return _answer(found)


@operation("RegisterCertificateWithoutCA", shares=True)
def register_certificate_without_ca(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    found = certificates.register_without_authority(
        registry_of(request), actor_of(request), params["certificatePem"], status=params.get("status")
    )
    return _answer(found)


@operation("DescribeCertificate", quick=True)
def describe_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    registry = registry_of(request)
    row = certificates.describe(registry, actor_of(request), params["certificateId"])
    transfer = {
        "transferMessage": row["transfer_message"],
        "transferDate": moment(row["transferred_at"]),
        "acceptDate": moment(row["accepted_at"]),
        "rejectReason": row["reject_reason"],
        "rejectDate": moment(row["rejected_at"]),
    }
    description = {
        "certificateArn": registry.arn(request.account_id, f"cert/{row['id']}"),
        "certificateId": row["id"],
        "caCertificateId": row["ca_certificate_id"],
        "status": row["status"],
        "certificatePem": DER_cert_to_PEM_cert(bytes(row["der"])),
        "ownedBy": row["account_id"],
        "previousOwnedBy": row["previous_owner"],
        "creationDate": moment(row["created_at"]),
        "lastModifiedDate": moment(row["modified_at"]),
        "customerVersion": row["customer_version"],
        "transferData": transfer if any(value is not None for value in transfer.values()) else None,
        "generationId": row["generation_id"],
        "validity": {"notBefore": moment(row["not_before"]), "notAfter": moment(row["not_after"])},
        "certificateMode": row["mode"],
    }
    return {"certificateDescription": description}


def _listed(request: Request, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "certificateArn": registry_of(request).arn(request.account_id, f"cert/{row['id']}"),
        "certificateId": row["id"],
        "status": row["status"],
        "certificateMode": row["mode"],
        "creationDate": moment(row["created_at"]),
    }


@operation("ListCertificates")
def list_certificates(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = certificates.listed(
        registry_of(request),
        actor_of(request),
        token=params.get("marker"),
        size=params.get("pageSize"),
        ascending=params.get("ascendingOrder", False),
    )
    return paged("certificates", (_listed(request, row) for row in page.rows), page)


@operation("ListCertificatesByCA")
def list_certificates_by_ca(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = certificates.listed(
        registry_of(request),
        actor_of(request),
        authority_id=certificates.check_id(params["caCertificateId"]),
        token=params.get("marker"),
        size=params.get("pageSize"),
        ascending=params.get("ascendingOrder", False),
    )
    return paged("certificates", (_listed(request, row) for row in page.rows), page)


@operation("UpdateCertificate", shares=True)
def update_certificate(request: Request, params: dict[str, Any]) -> None:
    certificates.set_status(registry_of(request), actor_of(request), params["certificateId"], params["newStatus"])


@operation("DeleteCertificate")
def delete_certificate(request: Request, params: dict[str, Any]) -> None:
    certificates.remove(
        registry_of(request), actor_of(request), params["certificateId"], force=params.get("forceDelete", False)
    )
