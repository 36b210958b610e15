"""Issuing in AWS IoT's words; what it means is in ``keyassay.registry.issuing``."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, registry_of
from keyassay.registry import issuing


def _answer(issued: issuing.Issued) -> dict[str, Any]:
    return {
        "certificateArn": issued.registered.arn,
        "certificateId": issued.registered.id,
        "certificatePem": issued.certificate_pem,
    }


@operation("CreateCertificateFromCsr")
def create_certificate_from_csr(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    issued = issuing.certify_request(
        registry_of(request),
        actor_of(request),
        params["certificateSigningRequest"],
        set_as_active=params.get("setAsActive", False),
    )
    return _answer(issued)


@operation("CreateKeysAndCertificate")
def create_keys_and_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    issued = issuing.make_keys(registry_of(request), actor_of(request), set_as_active=params.get("setAsActive", False))
    pair = {"PublicKey": issued.public_key_pem, "PrivateKey": issued.private_key_pem}
    return {**_answer(issued), "keyPair": pair}
