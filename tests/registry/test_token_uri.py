"""pkcs11: URIs: what is read, what is refused, and that a PIN in one goes nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.registry.errors import InvalidError
from keyassay.registry.token_uri import TokenUri


def test_what_administrators_write() -> None:
    text = "pkcs11:token=The%20plant;object=ca-2026;id=%0A%0b;type=private?module-path=/usr/lib/p11.so&pin-source=file:/run/pin"
    read = TokenUri.parse(text)
    assert read == TokenUri(
        token="The plant", object="ca-2026", id=b"\x0a\x0b", module_path="/usr/lib/p11.so", pin_source="/run/pin"
    )
    assert read.names_a_key
    assert not read.place.names_a_key
    assert read.place == TokenUri(token="The plant", module_path="/usr/lib/p11.so", pin_source="/run/pin")
    assert (read.token_name, read.key_name) == ("'The plant'", "'ca-2026'")
    by_number = TokenUri.parse("pkcs11:serial=8a3f;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;id=%FF")
    assert (by_number.serial, by_number.manufacturer, by_number.model) == ("8a3f", "SoftHSM project", "SoftHSM v2")
    assert ("8a3f" in by_number.token_name, by_number.key_name) == (True, "ff")


@pytest.mark.parametrize("source", ["file:/run/my%20pin", "file:///run/my%20pin", "/run/my%20pin"])
def test_where_the_pin_is(source: str) -> None:
    assert TokenUri.parse(f"pkcs11:token=a?pin-source={source}").pin_source == "/run/my pin"


_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


@given(_TEXTS, _TEXTS, _TEXTS, _TEXTS, st.binary(max_size=8), _TEXTS, _TEXTS)
def test_what_is_written_is_read_again(
    token: str, serial: str, model: str, label: str, identifier: bytes, module: str, pin: str
) -> None:
    uri = TokenUri(
        token=token or "x", serial=serial, model=model, object=label, id=identifier,
        module_path=f"/{module}" if module else "", pin_source=f"/{pin.lstrip('/')}" if pin else "",
    )  # fmt: skip
    assert TokenUri.parse(str(uri)) == uri
    assert str(uri).isascii()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "named by a URI"),
        ("file:/x", "named by a URI"),
        ("pkcs11:token=a;object=" + "b" * 2_000, "named by a URI"),
        ("pkcs11:", "names no token"),
        ("pkcs11:object=a", "names no token"),
        ("pkcs11:token=", "names no token"),
        ("pkcs11:token=a;token=b", "twice"),
        ("pkcs11:token=a;slot-id=1", "'slot-id' is not understood"),
        ("pkcs11:token=a;x-vendor=1", "not understood"),
        ("pkcs11:token=a?module-name=p11", "not understood"),
        ("pkcs11:token", "not escaped"),
        ("pkcs11:token=a b", "not escaped"),
        ("pkcs11:token=%4", "not escaped"),
        ("pkcs11:token=%FF", "UTF-8"),
        ("pkcs11:token=a%00", "zero"),
        ("pkcs11:token=a;type=public", "private key"),
        ("pkcs11:token=a?module-path=p11.so", "absolute"),
        ("pkcs11:token=a?pin-source=pin", "pin-source is a file"),
        ("pkcs11:token=a?pin-source=|cat%20pin", "pin-source is a file"),
        ("pkcs11:token=a?pin-source=file://host/pin", "pin-source is a file"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        TokenUri.parse(text)


def test_a_pin_is_refused_and_not_repeated() -> None:
    for text in ("pkcs11:token=a?pin-value=49152", "pkcs11:token=a;pin-value=49152"):
        with pytest.raises(InvalidError, match="pin-source") as caught:
            TokenUri.parse(text)
        assert "49152" not in str(caught.value)


def test_an_ampersand_belongs_to_a_value_of_the_path() -> None:
    assert TokenUri.parse("pkcs11:token=a&object=b").token == "a&object=b"
