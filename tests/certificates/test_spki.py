"""Subject public key infos: every key that has one meaning comes back, and none that has not."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from certificate_forms import DER, SPKI, forms, openssl
from keyassay.certificates import spki
from keyassay.certificates.der import (
    BIT_STRING,
    SEQUENCE,
    DerError,
    element,
    expect,
    integer_element,
    oid_element,
)
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    ExplicitParameters,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
)

NUMBERS = st.integers(0, 2**300)
KEYS: st.SearchStrategy[PublicKey] = st.one_of(
    st.builds(RsaPublicKey, NUMBERS, NUMBERS),
    st.builds(EcPublicKey, st.sampled_from(sorted(spki.CURVE_NAMES.values())), st.binary(max_size=70)),
    st.builds(OkpPublicKey, st.sampled_from(["ed25519", "ed448", "x25519", "x448"]), st.binary(max_size=60)),
    st.builds(DsaPublicKey, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(
        EcPublicKey,
        st.just("explicit"),
        st.binary(max_size=70),
        st.builds(
            ExplicitParameters,
            st.just("prime"),
            NUMBERS,
            NUMBERS,
            NUMBERS,
            st.binary(max_size=70),
            NUMBERS,
            st.none() | NUMBERS,
        ),
    ),
)


def parsed(data: bytes) -> tuple[PublicKey, list[str]]:
    notices: list[str] = []
    start, stop = expect(data, 0, len(data), SEQUENCE, "key")
    return spki.parse(data, start, stop, notices), notices


@given(KEYS)
def test_keys_come_back_from_their_encoding(key: PublicKey) -> None:
    data = spki.encode(key)
    assert data is not None
    assert parsed(data) == (key, [])


@pytest.mark.parametrize("form", ["spki", "spki der", "dsa spki", "ed25519 spki", "ed448 spki", "x25519 spki"])
def test_the_encoding_is_that_of_the_library(form: str) -> None:
    data = forms()[form][0]
    load = serialization.load_pem_public_key if data.startswith(b"-") else serialization.load_der_public_key
    encoded = load(data).public_bytes(DER, SPKI)
    assert spki.encode(parsed(encoded)[0]) == encoded


def test_every_curve_of_openssl_is_known_by_name() -> None:
    listed = openssl("ecparam", "-list_curves").decode().splitlines()
    names = [line.split(":")[0].strip() for line in listed if ":" in line]
    unknown = []
    for name in names:
        parameters = openssl("ecparam", "-name", name, "-outform", "DER")
        key, _ = parsed(
            element(
                SEQUENCE,
                element(SEQUENCE, oid_element("1.2.840.10045.2.1"), parameters),
                element(BIT_STRING, b"\0\4"),
            )
        )
        if isinstance(key, EcPublicKey) and key.curve[:1].isdigit():
            unknown.append(name)
    assert len(names) > 10
    assert all(name.startswith(("wap-", "c2", "Oakley")) for name in unknown)


@pytest.mark.parametrize(
    "data",
    [
        element(SEQUENCE),
        element(SEQUENCE, spki.RSA_ALGORITHM),
        element(SEQUENCE, spki.RSA_ALGORITHM, element(BIT_STRING)),
        element(SEQUENCE, spki.RSA_ALGORITHM, element(BIT_STRING, b"\1\0")),
        element(SEQUENCE, spki.RSA_ALGORITHM, element(BIT_STRING, b"\0"), b"\5\0"),
        element(SEQUENCE, spki.RSA_ALGORITHM, element(BIT_STRING, b"\0", element(SEQUENCE, integer_element(1)))),
        element(SEQUENCE, spki.RSA_ALGORITHM, element(BIT_STRING, b"\0", element(SEQUENCE, b"\2\0\2\1\3"))),
        element(SEQUENCE, spki.RSA_ALGORITHM, element(BIT_STRING, b"\0", element(SEQUENCE, b"\2\1\5\2\1\3\5\0"))),
    ],
)
def test_what_has_no_one_meaning_is_refused(data: bytes) -> None:
    with pytest.raises(DerError):
        parsed(data)


def test_absurd_binary_fields_are_refused_at_once() -> None:
    field = element(
        SEQUENCE,
        oid_element("1.2.840.10045.1.2"),
        element(SEQUENCE, integer_element(2**40), oid_element("1.2.840.10045.1.2.3.2"), integer_element(2**39)),
    )
    curve = element(SEQUENCE, element(4, b"\1"), element(4, b"\1"))
    parameters = element(SEQUENCE, integer_element(1), field, curve, element(4, b"\4"), integer_element(5))
    algorithm = element(SEQUENCE, oid_element("1.2.840.10045.2.1"), parameters)
    with pytest.raises(DerError, match="absurd binary field"):
        parsed(element(SEQUENCE, algorithm, element(BIT_STRING, b"\0\4")))


def test_names_of_types_that_no_check_knows() -> None:
    assert spki.unsupported_name("2.16.840.1.101.3.4.3.18") == "ML-DSA-65"
    assert spki.unsupported_name("1.2.840.113549.1.1.1") == ""
    assert spki.encode(UnsupportedPublicKey("x", "x", "x")) is None
