"""What the variables and condition keys of policies stand for when a certificate connects under a client id.

A thing is known to a connection if its certificate is attached to it and the client id is its name, or if the
certificate is attached to it exclusively, whatever the client id. Names, limits and the forms with an index and with
``.List``: AWS's pages on thing policy variables and X.509 certificate policy variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.x509.oid import NameOID

from keyassay.registry.authorization import Context

CERTIFICATE = "iot:certificate."
THING = "iot:connection.thing."
CLIENT_ID = "iot:clientid"

_NAMES = {
    NameOID.DN_QUALIFIER: "distinguishednamequalifier",
    NameOID.COUNTRY_NAME: "country",
    NameOID.ORGANIZATION_NAME: "organization",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalunit",
    NameOID.STATE_OR_PROVINCE_NAME: "state",
    NameOID.COMMON_NAME: "commonname",
    NameOID.SERIAL_NUMBER: "serialnumber",
    NameOID.TITLE: "title",
    NameOID.SURNAME: "surname",
    NameOID.GIVEN_NAME: "givenname",
    NameOID.INITIALS: "initials",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.GENERATION_QUALIFIER: "generationqualifier",
}
#: values that count of an attribute, and characters of a value; one with a special character has no value
_VALUES, _LENGTH, _SPECIAL = 5, 1024, frozenset("*$+?#")


@dataclass(frozen=True)
class Thing:
    """A thing, as policies see it."""

    name: str
    type_name: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def certificate_values(der: bytes) -> dict[str, tuple[str, ...]] | None:
    """Names in lower case -> values of what a certificate says of its subject and issuer; None if it cannot be read."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        certificate = x509.load_der_x509_certificate(der)
        for side, name in (("subject", certificate.subject), ("issuer", certificate.issuer)):
            for oid, short in _NAMES.items():
                texts = [str(one.value) for one in name.get_attributes_for_oid(oid)]
                _enter(found, f"{CERTIFICATE}{side}.{short}", texts)
        _enter(found, f"{CERTIFICATE}serialnumber", [f"{certificate.serial_number:x}"])
        for oid, side in (
            (x509.SubjectAlternativeName.oid, "subject"),
            (x509.IssuerAlternativeName.oid, "issuer"),
        ):
            _enter_alternatives(found, certificate, oid, f"{CERTIFICATE}{side}.alternativename.")
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    return found


def _enter_alternatives(
    found: dict[str, tuple[str, ...]], certificate: x509.Certificate, oid: x509.ObjectIdentifier, before: str
) -> None:
    try:
        names = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return
    if not isinstance(names, x509.SubjectAlternativeName | x509.IssuerAlternativeName):
        return
    _enter(found, f"{before}rfc822name", names.get_values_for_type(x509.RFC822Name))
    _enter(found, f"{before}dnsname", names.get_values_for_type(x509.DNSName))
    _enter(found, f"{before}uniformresourceidentifier", names.get_values_for_type(x509.UniformResourceIdentifier))
    directories = names.get_values_for_type(x509.DirectoryName)
    _enter(found, f"{before}directoryname", [one.rfc4514_string() for one in directories])
    _enter(found, f"{before}ipaddress", [str(one) for one in names.get_values_for_type(x509.IPAddress)])


def _enter(found: dict[str, tuple[str, ...]], name: str, values: Iterable[str]) -> None:
    kept = tuple(values)[:_VALUES]
    usable = [one if len(one) <= _LENGTH and not _SPECIAL.intersection(one) else None for one in kept]
    for index, value in enumerate(usable):
        if value is not None:
            if index == 0:
                found[name] = (value,)
            else:
                found[f"{name}.{index}"] = (value,)
    if usable and None not in usable:
        found[f"{name}.list"] = tuple(one for one in usable if one is not None)


def connection_context(
    client_id: str | None,
    certificate_id: str,
    names: Mapping[str, tuple[str, ...]] | None,
    thing: Thing | None,
    **more: str,
) -> Context:
    """What is known of a connection.

    Args:
        client_id: None for any one: nothing that depends on it is known.
        certificate_id: of the certificate.
        names: from ``certificate_values``; None if they are not known.
        thing: that the connection is about; None for none.
        more: what else is known, with ``__`` for the colon: ``aws__sourceip``.
    """
    values: dict[str, tuple[str, ...]] = {} if names is None else dict(names)
    values["iot:certificateid"] = (certificate_id,)
    values[f"{THING}isattached"] = ("false" if thing is None else "true",)
    if client_id is not None:
        values[CLIENT_ID] = (client_id,)
    if thing is not None:
        values[f"{THING}thingname"] = (thing.name,)
        if thing.type_name is not None:
            values[f"{THING}thingtypename"] = (thing.type_name,)
        for name, value in thing.attributes.items():
            values[f"{THING}attributes[{name}]"] = (value,)
    values |= {name.replace("__", ":"): (value,) for name, value in more.items()}
    return Context(values, (THING,) if names is None else (THING, CERTIFICATE))
