"""Certificate authorities and tags in AWS IoT's words; the domain is ``keyassay.registry.authorities`` and ``tags``."""

from __future__ import annotations

from ssl import DER_cert_to_PEM_cert
from typing import Any

from keyassay.aws.operations import Access, Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import authorities, tags


@operation("GetRegistrationCode", access=Access.REGISTER)
def get_registration_code(request: Request, _params: dict[str, Any]) -> dict[str, Any]:
    return {"registrationCode": authorities.registration_code(registry_of(request), actor_of(request))}


@operation("DeleteRegistrationCode")
def delete_registration_code(request: Request, _params: dict[str, Any]) -> None:
    authorities.delete_registration_code(registry_of(request), actor_of(request))


@operation("RegisterCACertificate", access=Access.REGISTER)
def register_ca_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    found = authorities.register(
        registry_of(request),
        actor_of(request),
        params["caCertificate"],
        verification_pem=params.get("verificationCertificate"),
        mode=params.get("certificateMode"),
        set_as_active=params.get("setAsActive", False),
        auto_registration=params.get("allowAutoRegistration", False),
        registration_config=params.get("registrationConfig"),
        tags=tags.as_mapping(params.get("tags")),
    )
    return {"certificateArn": found.arn, "certificateId": found.id}


@operation("DescribeCACertificate")
def describe_ca_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    registry = registry_of(request)
    row = authorities.describe(registry, actor_of(request), params["certificateId"])
    description = {
        "certificateArn": registry.arn(request.account_id, f"cacert/{row['id']}"),
        "certificateId": row["id"],
        "status": row["status"],
        "certificatePem": DER_cert_to_PEM_cert(bytes(row["der"])),
        "ownedBy": row["account_id"],
        "creationDate": moment(row["created_at"]),
        "autoRegistrationStatus": "ENABLE" if row["auto_registration"] else "DISABLE",
        "lastModifiedDate": moment(row["modified_at"]),
        "customerVersion": row["customer_version"],
        "generationId": row["generation_id"],
        "validity": {"notBefore": moment(row["not_before"]), "notAfter": moment(row["not_after"])},
        "certificateMode": row["mode"],
    }
    return {"certificateDescription": description, "registrationConfig": row["registration_config"]}


@operation("ListCACertificates")
def list_ca_certificates(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = authorities.listed(
        registry_of(request),
        actor_of(request),
        token=params.get("marker"),
        size=params.get("pageSize"),
        ascending=params.get("ascendingOrder", False),
    )
    rows = (
        {
            "certificateArn": registry_of(request).arn(request.account_id, f"cacert/{row['id']}"),
            "certificateId": row["id"],
            "status": row["status"],
            "creationDate": moment(row["created_at"]),
        }
        for row in page.rows
    )
    return paged("certificates", rows, page)


@operation("UpdateCACertificate")
def update_ca_certificate(request: Request, params: dict[str, Any]) -> None:
    wish = params.get("newAutoRegistrationStatus")
    authorities.change(
        registry_of(request),
        actor_of(request),
        params["certificateId"],
        status=params.get("newStatus"),
        auto_registration=None if wish is None else wish == "ENABLE",
        registration_config=params.get("registrationConfig"),
        remove_auto_registration=params.get("removeAutoRegistration", False),
    )


@operation("DeleteCACertificate")
def delete_ca_certificate(request: Request, params: dict[str, Any]) -> None:
    authorities.remove(registry_of(request), actor_of(request), params["certificateId"])


@operation("TagResource")
def tag_resource(request: Request, params: dict[str, Any]) -> None:
    tags.tag(registry_of(request), actor_of(request), params["resourceArn"], tags.as_mapping(params["tags"]))


@operation("UntagResource")
def untag_resource(request: Request, params: dict[str, Any]) -> None:
    tags.untag(registry_of(request), actor_of(request), params["resourceArn"], params["tagKeys"])


@operation("ListTagsForResource")
def list_tags_for_resource(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = tags.tags_of(registry_of(request), actor_of(request), params["resourceArn"], token=params.get("nextToken"))
    return paged("tags", ({"Key": row["name"], "Value": row["value"]} for row in page.rows), page, "nextToken")
