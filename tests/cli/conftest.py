"""Runs command lines in this process, and real certificates for them to read."""

import logging
import sys
from types import SimpleNamespace

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuing import certificate, pem, sound_key, spki_of
from keyassay.cli.main import run
from sample_run import HOSTILE, primes


@pytest.fixture
def logs_as_before():
    """A server or worker sends logs to this test's standard error, which is closed when the next test logs."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def keyassay(capsys, logs_as_before):
    """Run a command line; its exit code and what it wrote."""

    def call(*arguments):
        code = run([str(one) for one in arguments])
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return call


def close_primes():
    p, q = primes()
    return rsa.RSAPublicNumbers(65537, p * q).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """A folder with a broken key, a private key of 7, a sound key in DER and one under a hostile name, and rubbish."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "broken.pem").write_bytes(pem(certificate(close_primes(), "device-17")))
    (folder / "seven.pem").write_bytes(pem(certificate(spki_of(ec.derive_private_key(7, ec.SECP256R1())), HOSTILE)))
    (folder / "sound.der").write_bytes(certificate(spki_of(sound_key()), "device-18"))
    (folder / "sound\x1b[31m\u202e.pem").write_bytes(pem(certificate(spki_of(sound_key(2)), HOSTILE)))
    (folder / "notes.txt").write_text("nothing of interest")
    return folder


@pytest.fixture
def sound(tmp_path, monkeypatch):
    """One file with a sound key."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sound.pem"
    path.write_bytes(pem(certificate(spki_of(sound_key()), "device-18")))
    return path


@pytest.fixture
def program():
    """The program as a command of its own, for signals and pipes."""
    return [sys.executable, "-m", "keyassay.cli.main"]
