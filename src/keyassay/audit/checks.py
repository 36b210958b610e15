"""All audit checks, as data: AWS's names, severities and reason codes, and what each of them examines.

What a check does is elsewhere (``worker`` finds its function); here is what requests are checked against, what the
documentation's table is made from, and how resources are named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keyassay.findings import Severity
from keyassay.registry.errors import InvalidError

#: where a key's checks have no reason code of AWS's, theirs begin so, too
KEY_REASON_PREFIX = "CERTIFICATE_KEY_VULNERABILITY_"

#: resource types of findings, and the member of a resource identifier that names such a resource
IDENTIFIERS = {
    "DEVICE_CERTIFICATE": "deviceCertificateId",
    "CA_CERTIFICATE": "caCertificateId",
    "IOT_POLICY": "policyVersionIdentifier",
    "CLIENT_ID": "clientId",
    "ACCOUNT_SETTINGS": "account",
    "COGNITO_IDENTITY_POOL": "cognitoIdentityPoolId",
    "IAM_ROLE": "iamRoleArn",
    "ROLE_ALIAS": "roleAliasArn",
    "ISSUER_CERTIFICATE": "issuerCertificateIdentifier",
}

_LONGEST_KEY = 400


class Needs(StrEnum):
    """What a check needs beside the registry's own rows."""

    REGISTRY = "registry"
    REVOCATION_LISTS = "revocation lists"
    CONNECTIONS = "connection events"
    #: exists in AWS only: the check is listed and can be enabled, and ends compliant over no resources
    AWS = "AWS"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that an operator may set for a check: a string of digits in the API.

    Attributes:
        name: in the check's ``configuration``.
        default, least, most: days.
    """

    name: str
    default: int
    least: int = 30
    most: int = 3_652


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """One audit check.

    Attributes:
        name: AWS's.
        severity: of its findings.
        resource_type: of what its findings are about.
        examines: a few words for people.
        reasons: by the reason codes of its findings, the sentence that explains it, "" where the finding brings its
            own. Of key quality only AWS's two: ours are ``KEY_REASON_PREFIX`` + the engine's check in upper case.
        needs: beside the registry.
        thresholds: what its ``configuration`` may set.
    """

    name: str
    severity: Severity
    resource_type: str
    examines: str
    reasons: Mapping[str, str]
    needs: Needs = Needs.REGISTRY
    thresholds: tuple[Threshold, ...] = ()

    @property
    def reason_codes(self) -> tuple[str, ...]:
        """Those of AWS."""
        return tuple(self.reasons)

    @property
    def identifier(self) -> str:
        """The member of a resource identifier that its findings and suppressions use."""
        return IDENTIFIERS[self.resource_type]


_KEY_REASONS = {
    KEY_REASON_PREFIX + "CVE-2017-15361": "",
    KEY_REASON_PREFIX + "CVE-2008-0166": "",
}
_EXPIRY_REASONS = {
    "CERTIFICATE_APPROACHING_EXPIRATION": "The certificate expires soon.",
    "CERTIFICATE_PAST_EXPIRATION": "The certificate has expired.",
}
_REVOKED = {"CERTIFICATE_REVOKED_BY_ISSUER": "Its issuer has revoked the certificate, which is still active."}
_DEVICES = "device certificates that are ACTIVE or PENDING_TRANSFER"
_AUTHORITIES = "CA certificates that are ACTIVE, and the account's own that issues"
_POLICIES = "the default version of each policy"
_NOT_HERE = "does not exist outside AWS"

AUDIT_CHECKS: Mapping[str, AuditCheck] = {
    one.name: one
    for one in (
        AuditCheck(
            "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK", Severity.CRITICAL, "DEVICE_CERTIFICATE", _DEVICES, _KEY_REASONS
        ),
        AuditCheck(
            "CA_CERTIFICATE_KEY_QUALITY_CHECK",
            Severity.CRITICAL,
            "CA_CERTIFICATE",
            _AUTHORITIES,
            _KEY_REASONS,
        ),
        AuditCheck(
            "DEVICE_CERTIFICATE_EXPIRING_CHECK",
            Severity.MEDIUM,
            "DEVICE_CERTIFICATE",
            _DEVICES,
            _EXPIRY_REASONS,
            thresholds=(Threshold("CERT_EXPIRATION_THRESHOLD_IN_DAYS", 30),),
        ),
        AuditCheck("CA_CERTIFICATE_EXPIRING_CHECK", Severity.MEDIUM, "CA_CERTIFICATE", _AUTHORITIES, _EXPIRY_REASONS),
        AuditCheck(
            "DEVICE_CERTIFICATE_AGE_CHECK",
            Severity.LOW,
            "DEVICE_CERTIFICATE",
            _DEVICES,
            {"CERTIFICATE_PAST_AGE_THRESHOLD": "The certificate has been in use for longer than it should be."},
            thresholds=(Threshold("CERT_AGE_THRESHOLD_IN_DAYS", 365),),
        ),
        AuditCheck(
            "REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK",
            Severity.CRITICAL,
            "CA_CERTIFICATE",
            _AUTHORITIES,
            _REVOKED,
            Needs.REVOCATION_LISTS,
        ),
        AuditCheck(
            "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK",
            Severity.MEDIUM,
            "DEVICE_CERTIFICATE",
            _DEVICES,
            _REVOKED,
            Needs.REVOCATION_LISTS,
        ),
        AuditCheck(
            "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK",
            Severity.CRITICAL,
            "ISSUER_CERTIFICATE",
            "authorities above active device certificates",
            {"INTERMEDIATE_CA_REVOKED_BY_ISSUER": "An authority that signed active certificates has been revoked."},
            Needs.REVOCATION_LISTS,
        ),
        AuditCheck(
            "IOT_POLICY_OVERLY_PERMISSIVE_CHECK",
            Severity.CRITICAL,
            "IOT_POLICY",
            _POLICIES,
            {
                "ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS": (
                    "The policy lets a device act in the place of others: connect, publish, subscribe."
                )
            },
        ),
        AuditCheck(
            "IOT_POLICY_POTENTIAL_MISCONFIGURATION_CHECK",
            Severity.MEDIUM,
            "IOT_POLICY",
            _POLICIES,
            {
                "POLICY_CONTAINS_MQTT_WILDCARDS_IN_DENY_STATEMENT": (
                    "A Deny statement holds MQTT's wildcards + or #, which mean nothing in a policy."
                ),
                "TOPIC_FILTERS_INTENDED_TO_DENY_ALLOWED_USING_WILDCARDS": (
                    "Topics that a Deny statement names can be received through a wider subscription."
                ),
            },
        ),
        AuditCheck(
            "LOGGING_DISABLED_CHECK",
            Severity.LOW,
            "ACCOUNT_SETTINGS",
            "the account's logging options",
            {"LOGGING_DISABLED": "Logging is not set up, or switched off."},
        ),
        AuditCheck(
            "DEVICE_CERTIFICATE_SHARED_CHECK",
            Severity.CRITICAL,
            "DEVICE_CERTIFICATE",
            "connections of the last 31 days",
            {
                "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES": (
                    "Several clients were connected with the certificate at the same time."
                )
            },
            Needs.CONNECTIONS,
        ),
        AuditCheck(
            "CONFLICTING_CLIENT_IDS_CHECK",
            Severity.HIGH,
            "CLIENT_ID",
            "connections of the last 31 days",
            {
                "DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS": (
                    "Several connections used the client id at the same time, or drove each other out."
                )
            },
            Needs.CONNECTIONS,
        ),
        AuditCheck(
            "AUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK",
            Severity.CRITICAL,
            "COGNITO_IDENTITY_POOL",
            _NOT_HERE,
            {
                "ALLOWS_BROAD_ACCESS_TO_IOT_THING_ADMIN_READ_ACTIONS": "",
                "ALLOWS_ACCESS_TO_IOT_NON_THING_ADMIN_ACTIONS": "",
                "ALLOWS_ACCESS_TO_IOT_THING_ADMIN_WRITE_ACTIONS": "",
            },
            Needs.AWS,
        ),
        AuditCheck(
            "UNAUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK",
            Severity.CRITICAL,
            "COGNITO_IDENTITY_POOL",
            _NOT_HERE,
            {"ALLOWS_ACCESS_TO_IOT_ADMIN_ACTIONS": "", "ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS": ""},
            Needs.AWS,
        ),
        AuditCheck(
            "IOT_ROLE_ALIAS_OVERLY_PERMISSIVE_CHECK",
            Severity.CRITICAL,
            "ROLE_ALIAS",
            _NOT_HERE,
            {
                "ALLOWS_BROAD_ACCESS_TO_USED_SERVICES": "",
                "ALLOWS_ACCESS_TO_SECURITY_AUDITING_SERVICES": "",
                "ALLOWS_BROAD_ACCESS_TO_IOT_THING_ADMIN_READ_ACTIONS": "",
                "ALLOWS_ACCESS_TO_IOT_NON_THING_ADMIN_ACTIONS": "",
                "ALLOWS_ACCESS_TO_IOT_THING_ADMIN_WRITE_ACTIONS": "",
                "ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS": "",
            },
            Needs.AWS,
        ),
        AuditCheck(
            "IOT_ROLE_ALIAS_ALLOWS_ACCESS_TO_UNUSED_SERVICES_CHECK",
            Severity.MEDIUM,
            "ROLE_ALIAS",
            _NOT_HERE,
            {"ALLOWS_ACCESS_TO_UNUSED_SERVICES": ""},
            Needs.AWS,
        ),
    )
}


def audit_check(name: str) -> AuditCheck:
    """The check of that name.

    Raises:
        InvalidError: there is none.
    """
    found = AUDIT_CHECKS.get(name)
    if found is None:
        raise InvalidError(f"there is no audit check {name[:200]!r}")
    return found


def resource_key(identifier: Mapping[str, Any]) -> str:
    """How a resource is named in tables: "deviceCertificateId=ID", "policyVersionIdentifier=NAME:VERSION", ...

    Args:
        identifier: AWS's ResourceIdentifier.

    Raises:
        InvalidError: it does not have exactly one member, or the member is incomplete.
    """
    if len(identifier) != 1:
        raise InvalidError("a resource identifier has exactly one member")
    ((member, value),) = identifier.items()
    if member == "policyVersionIdentifier":
        text = f"{_part(value, 'policyName')}:{_part(value, 'policyVersionId')}"
    elif member == "issuerCertificateIdentifier":
        text = _part(value, "issuerId")  # names the certificate; serial numbers of more than 20 digits are left out
    elif member in ("deviceCertificateId", "caCertificateId"):
        text = str(value).removeprefix("0x").lower()  # AWS's model permits both forms
    else:
        text = str(value) if not isinstance(value, dict) else json.dumps(value, sort_keys=True)
    if len(member) + 1 + len(text) > _LONGEST_KEY:
        text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return f"{member}={text}"


def _part(value: Mapping[str, Any], member: str) -> str:
    if member not in value:
        raise InvalidError(f"{member} is missing in the resource identifier")
    return str(value[member])
