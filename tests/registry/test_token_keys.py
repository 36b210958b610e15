"""Keys in a token: signatures that hold, PINs that are refused, tokens that go away, threads, processes and forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

import fleet_keys
from keyassay.registry import token_keys
from keyassay.registry.errors import InvalidError, SigningUnavailableError
from keyassay.registry.token_uri import TokenUri
from soft_token import SoftToken

ECDSA = ec.ECDSA(hashes.SHA256())


def made(token: SoftToken, label: str = "ca") -> Any:
    """A new key in the token."""
    return token_keys.key_of(*token_keys.make_pair(TokenUri.parse(token.uri(label)), ""))


def signs(key: Any) -> bool:
    key.public_key().verify(key.sign(b"text", ECDSA), b"text", ECDSA)
    return True


def test_a_key_that_is_made_stays_in_the_token(token: SoftToken) -> None:
    uri = TokenUri.parse(token.uri("ca"))
    assert token_keys.identify(uri) is None
    named, public = token_keys.make_pair(uri, "not needed")
    assert (named.object, len(named.id)) == ("ca", 16)
    assert token_keys.identify(uri) == named
    assert token_keys.public_half(named) == public
    assert not token_keys.can_leave(named)
    key = token_keys.key_of(named, public)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert (key.curve.name, key.key_size) == ("secp256r1", 256)
    assert signs(key)
    for reading in (key.private_numbers, key.private_bytes):
        with pytest.raises(UnsupportedAlgorithm, match="does not leave"):
            reading()
    with pytest.raises(UnsupportedAlgorithm):
        key.sign(b"text", ec.ECDSA(hashes.SHA384()))
    labelled, _ = token_keys.make_pair(uri.place, "a label")
    assert labelled.object == "a label"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_key_on_a_curve_that_was_there(token: SoftToken, curve: ec.EllipticCurve) -> None:
    mine = ec.generate_private_key(curve)
    token.put(mine, "imported")
    named = token_keys.identify(TokenUri.parse(token.uri("imported")))
    assert named is not None
    assert named.id == b"\x0a\x0b"
    assert token_keys.public_half(named) == mine.public_key()
    assert all(signs(token_keys.key_of(named, mine.public_key())) for _ in range(20))


def test_an_rsa_key_that_was_there(token: SoftToken) -> None:
    mine = fleet_keys.rsa_key(3)
    token.put(mine, "imported")
    uri = TokenUri.parse(token.uri("imported"))
    key = token_keys.key_of(uri, token_keys.public_half(uri))
    assert isinstance(key, rsa.RSAPrivateKey)
    assert (key.key_size, key.public_key()) == (2048, mine.public_key())
    scheme = padding.PKCS1v15()
    signature = key.sign(b"text", scheme, hashes.SHA256())
    assert signature == mine.sign(b"text", scheme, hashes.SHA256())
    for other in ((padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()), (scheme, hashes.SHA1())):
        with pytest.raises(UnsupportedAlgorithm):
            key.sign(b"text", *other)


def test_a_signature_by_another_key_does_not_get_out(token: SoftToken) -> None:
    key = made(token)
    strange = token_keys.key_of(key._uri, fleet_keys.ec_key(7).public_key())
    with pytest.raises(token_keys.WrongKeyError, match="not the expected one"):
        strange.sign(b"text", ECDSA)
    token.put(fleet_keys.rsa_key(3), "rsa")
    other = token_keys.key_of(TokenUri.parse(token.uri("rsa")), fleet_keys.rsa_key(4).public_key())
    with pytest.raises(token_keys.WrongKeyError):
        other.sign(b"text", padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidError, match="RSA or on a curve"):
        token_keys.key_of(key._uri, object())


def test_keys_that_are_not_there_or_not_alone(token: SoftToken) -> None:
    key = made(token)
    with pytest.raises(SigningUnavailableError, match="has no private key 'other'"):
        token_keys.key_of(TokenUri.parse(token.uri("other")), key.public_key()).sign(b"text", ECDSA)
    made(token)
    with pytest.raises(SigningUnavailableError, match="several private keys 'ca': id="):
        token_keys.identify(TokenUri.parse(token.uri("ca")))
    assert signs(key)  # which has an id


def test_tokens_that_are_not_there_or_not_alone(token: SoftToken) -> None:
    uri = TokenUri.parse(token.uri("ca"))
    assert signs(made(token))
    for change in ({"token": "nowhere"}, {"serial": "0"}, {"model": "x"}, {"manufacturer": "x"}):
        strange = TokenUri(**{**{name: getattr(uri, name) for name in TokenUri.__slots__}, **change})
        with pytest.raises(SigningUnavailableError, match="is not there"):
            token_keys.identify(strange)
    token.initialize()
    token.leave()  # so that the library has to look anew
    with pytest.raises(SigningUnavailableError):
        token_keys.identify(uri)
    token.come_back()
    with pytest.raises(SigningUnavailableError, match="several tokens"):
        token_keys.identify(uri)


def test_the_pin(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made(token)
    without = TokenUri.parse(token.uri(key._uri.object, **{"pin-source": ""}))
    plain = token_keys.key_of(without, key.public_key())

    def sentence() -> str:
        with pytest.raises(SigningUnavailableError) as caught:
            plain.sign(b"text", ECDSA)
        assert token.pin not in str(caught.value)
        assert caught.value.__context__ is None  # whose frames know more
        return caught.value.message

    assert "no PIN" in sentence()
    monkeypatch.setenv("KEYASSAY_PKCS11_PIN", token.pin)
    assert signs(plain)
    monkeypatch.setenv("KEYASSAY_PKCS11_PIN_FILE", str(token.pin_file))  # for whoever asks next
    token.leave()
    assert "answers with an error" in sentence()
    token.come_back()
    assert signs(plain)
    token.leave()
    sentence()
    token.come_back()
    for content, mode, said in (
        (f"{token.pin}\n", 0o644, "others may read"),
        (f"{token.pin}\n", 0o620, "others may read"),
        ("\n", 0o600, "empty"),
        ("\udcff", 0o600, "no text"),
    ):
        token.pin_file.chmod(0o600)
        token.pin_file.write_bytes(content.encode(errors="surrogateescape"))
        token.pin_file.chmod(mode)
        assert said in sentence()
    token.pin_file.unlink()
    assert "cannot be read" in sentence()
    token.pin_file.write_text(f"{token.pin}\r\nmore\n")
    token.pin_file.chmod(0o440)
    assert signs(plain)


def test_a_refused_pin_is_not_tried_again(token: SoftToken) -> None:
    """Tokens lock themselves after a few: what was refused is remembered, even if it would be right by now."""
    uri = TokenUri.parse(token.uri("ca"))
    token.pin_file.write_text("wrong-1234\n")
    for _ in range(3):
        with pytest.raises(SigningUnavailableError, match="refuses the PIN") as caught:
            token_keys.identify(uri)
        assert "wrong-1234" not in str(caught.value)
    token.vanish()
    token.initialize(pin="wrong-1234")
    with pytest.raises(SigningUnavailableError, match="refuses the PIN"):
        token_keys.identify(uri)
    token.vanish()
    token.initialize()
    token.pin_file.write_text(f"{token.pin}\n")
    assert token_keys.identify(uri) is None


def test_a_token_that_goes_away_and_comes_back(token: SoftToken) -> None:
    key = made(token)
    assert signs(key)
    token.leave()
    for _ in range(3):
        with pytest.raises(SigningUnavailableError, match="the token 'plant"):
            key.sign(b"text", ECDSA)
    token.come_back()
    assert signs(key)


def test_what_has_failed_is_left_in_peace_for_a_moment(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made(token)
    monkeypatch.setattr(token_keys, "PAUSE", 1.5)
    token.leave()
    began = time.monotonic()
    with pytest.raises(SigningUnavailableError) as first:
        key.sign(b"text", ECDSA)
    token.come_back()
    tries = 0
    while True:
        try:
            signs(key)
            break
        except SigningUnavailableError as error:
            assert error.message == first.value.message
            tries += 1
            time.sleep(0.05)
    assert tries > 0
    assert time.monotonic() - began > 1.5


def test_a_call_that_does_not_come_back_blocks_nobody(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made(token)
    library, goes_on, runs = token_keys._library(key._uri), threading.Event(), threading.Event()

    def hang(_session: Any) -> None:
        runs.set()
        goes_on.wait(60)

    monkeypatch.setattr(token_keys, "ANSWER_SECONDS", 0.3)
    with pytest.raises(SigningUnavailableError, match="does not answer"):
        library.call(key._uri, hang)
    assert runs.is_set()
    began = time.monotonic()
    monkeypatch.setattr(token_keys, "ANSWER_SECONDS", 0.2)
    for _ in range(50):  # each at once
        with pytest.raises(SigningUnavailableError, match="does not answer"):
            key.sign(b"text", ECDSA)
    assert time.monotonic() - began < 50 * 0.2
    monkeypatch.setattr(token_keys, "ANSWER_SECONDS", 10.0)
    goes_on.set()
    assert signs(key)


def test_many_threads(token: SoftToken) -> None:
    keys = [made(token, "one"), made(token, "two")]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: signs(keys[number % 2]), range(200)))


def test_where_the_library_is(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made(token)
    path = key._uri.module_path
    plain = token_keys.key_of(TokenUri.parse(token.uri("ca", **{"module-path": ""})), key.public_key())
    with pytest.raises(SigningUnavailableError, match="KEYASSAY_PKCS11_MODULE"):
        plain.sign(b"text", ECDSA)
    monkeypatch.setenv("KEYASSAY_PKCS11_MODULE", path)
    assert signs(plain)
    for strange in ("/nowhere/p11.so", str(token.pin_file)):
        with pytest.raises(SigningUnavailableError, match="cannot be loaded") as caught:
            token_keys.identify(TokenUri.parse(token.uri("ca", **{"module-path": strange})))
        assert str(Path(strange).parent) not in caught.value.message  # clients see it


def test_without_the_extra(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made(token)
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(SigningUnavailableError, match=r"install keyassay\[pkcs11\]"):
        key.sign(b"text", ECDSA)


FORKS = """
import os, sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from keyassay.registry import token_keys
from keyassay.registry.token_uri import TokenUri

uri = TokenUri.parse(sys.argv[1])
key = token_keys.key_of(uri, token_keys.public_half(uri))
sign = lambda: key.sign(b"text", ec.ECDSA(hashes.SHA256()))
sign()
children = []
for number in range(3):
    child = os.fork()
    if not child:
        sign(), sign()
        grandchild = os.fork()
        if not grandchild:
            sign()
            os._exit(40 + number)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    children.append(child)
    sign()
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sign()
print(codes)
"""


def test_children_by_fork_have_sessions_of_their_own(token: SoftToken) -> None:
    made(token)
    command = [sys.executable, "-W", "ignore", "-c", FORKS, token.uri("ca")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "[40, 41, 42]\n"), done.stderr


def test_processes_at_once(token: SoftToken) -> None:
    key = made(token)
    command = [sys.executable, "-W", "ignore", "-c", FORKS, token.uri("ca")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert all(signs(key) for _ in range(50))
    for process in running:
        assert process.communicate(timeout=60)[0] == b"[40, 41, 42]\n"
        assert process.returncode == 0
