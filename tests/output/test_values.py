import json

import gmpy2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import contract
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    ExplicitParameters,
    OkpPublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
)
from keyassay.output.values import hex_number, key_fields, plain


@given(st.integers())
def test_integers_come_back_exactly_whatever_the_reader_does(number):
    shown = plain(number)
    assert (int(float(shown)) if isinstance(shown, int) else int(shown, 16)) == number


@given(st.integers())
def test_serial_numbers_have_whole_octets(number):
    text = hex_number(number)
    assert int(text, 16) == number
    assert len(text.lstrip("-")) % 2 == 0


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists))
def test_every_value_of_evidence_is_json(value):
    shown = plain(value)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert contract.definition("value").is_valid(shown)


def test_foreign_integers_are_integers():
    assert plain(np.int64(7)) == 7
    assert plain(gmpy2.mpz(2**60)) == "1000000000000000"
    assert plain({"a": (np.uint8(1), b"\x01")}) == {"a": [1, "01"]}


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        (RsaPublicKey(2**2047 + 1, 2**53), {"type": "rsa", "bits": 2048, "exponent": 2**53}),
        (RsaPublicKey(3, 2**53 + 1), {"type": "rsa", "bits": 2, "exponent": "20000000000001"}),
        (EcPublicKey("P-256", b""), {"type": "ec", "bits": 256, "curve": "P-256"}),
        (EcPublicKey("secp256k1", b""), {"type": "ec", "bits": 256, "curve": "secp256k1"}),
        (EcPublicKey("brainpoolP384r1", b""), {"type": "ec", "bits": 384, "curve": "brainpoolP384r1"}),
        (EcPublicKey("sect283k1", b""), {"type": "ec", "bits": 283, "curve": "sect283k1"}),
        (EcPublicKey("SM2", b""), {"type": "ec", "bits": 256, "curve": "SM2"}),
        (EcPublicKey("1.3.36.99", b""), {"type": "ec", "bits": None, "curve": "1.3.36.99"}),
        (
            EcPublicKey("explicit", b"", ExplicitParameters("prime", 2**191 + 1, 0, 0, b"", 1, 1)),
            {"type": "ec", "bits": 192, "curve": "explicit"},
        ),
        (DsaPublicKey(2**1023, 1, 1, 1), {"type": "dsa", "bits": 1024}),
        (OkpPublicKey("x25519", b""), {"type": "x25519"}),
        (UnsupportedPublicKey("ml-dsa-44", "ML-DSA-44", "why"), {"type": "ml-dsa-44", "algorithm": "ML-DSA-44"}),
    ],
)
def test_keys_in_numbers(key, fields):
    assert key_fields(key) == fields
    assert contract.definition("key").is_valid(fields)
