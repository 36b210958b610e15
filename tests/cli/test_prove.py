import re
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuing import certificate, pem, sound_key, spki_of
from keyassay.bulk.roca_attack import UNIT, RocaAttack, state_file
from keyassay.keymath import roca
from roca_keys import roca_key, root_of
from sample_run import primes
from vectors_of_checks import cases_of


def commands_in(text):
    """The commands of a proof as a reader would copy them, here documents included, with what they promise."""
    found = []
    lines = iter(text.splitlines())
    says = ""
    for line in lines:
        if re.match(r"  \d+\. ", line):
            says = line
        if line.startswith("     $ "):
            command = line[7:]
            if command.endswith("<< 'END'"):
                for more in lines:
                    command += "\n" + more
                    if more == "END":
                        break
            promise = re.search(r"\(prints:? (.*)\)$", says)
            found.append((command, promise[1] if promise else None))
    return found


def repeat(text, folder):
    """Run all commands; what they promised and printed."""
    promised = []
    for command, promise in commands_in(text):
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        if promise:
            assert done.stdout.strip() == promise
            promised.append(promise)
    return promised


def test_a_factor_is_proved_down_to_a_signature(keyassay, fleet, tmp_path):
    done = keyassay("prove", "fleet/broken.pem", "--check", "rsa-close-primes")
    assert done.code == 1
    assert f"{primes()[0]:X}" in done.out
    promised = repeat(done.out, tmp_path)
    assert promised == ["0", "the same key", "Signature Verified Successfully"]
    printed = subprocess.run(
        ["openssl", "x509", "-in", "fleet/broken.pem", "-noout", "-pubkey"],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    made = subprocess.run(
        ["openssl", "pkey", "-in", "private.pem", "-pubout"], capture_output=True, check=True, cwd=tmp_path
    )
    assert made.stdout == printed.stdout


def test_an_elliptic_curve_key_under_a_hostile_name(keyassay, fleet, tmp_path):
    done = keyassay("prove", "fleet/seven.pem")
    assert done.code == 1
    assert done.out.replace("\n", "").isprintable()
    assert repeat(done.out, tmp_path) == ["the same key", "Signature Verified Successfully"]


def test_the_logarithm_of_roca_is_proved(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = next(one for one in cases_of("rsa-roca") if one.verdict == "weak" and one.items[0].key.bits >= 1024)
    (tmp_path / "roca.pem").write_bytes(pem(certificate(case.items[0].spki, "smart card")))
    done = keyassay("prove", "roca.pem", "--check", "rsa-roca")
    assert done.code == 1
    assert repeat(done.out, tmp_path) == ["True"]


def test_relations_are_proved_among_other_files(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    d = sound_key(4).private_numbers().private_value
    (tmp_path / "one.pem").write_bytes(pem(certificate(spki_of(sound_key(4)), "one")))
    (tmp_path / "other.pem").write_bytes(pem(certificate(spki_of(ec.derive_private_key(d + 5, ec.SECP256R1())), "two")))
    assert "fleet-related-ec-keys" not in keyassay("prove", "one.pem").out
    done = keyassay("prove", "one.pem", "--among", "other.pem")
    assert "fleet-related-ec-keys: weak, proven" in done.out
    assert "other.pem #0:" not in done.out


def test_a_file_in_the_folder_that_it_is_compared_with_is_proved_once(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "one.pem").write_bytes(pem(certificate(spki_of(sound_key(4)), "one")))
    (tmp_path / "fleet" / "two.pem").write_bytes(pem(certificate(spki_of(sound_key(4)), "two")))
    done = keyassay("prove", "fleet/one.pem", "--among", "fleet")
    assert done.out.count("fleet/one.pem #0:") == 1
    assert "fleet-repeated-key" in done.out


def test_nothing_found_is_no_proof_of_soundness(keyassay, sound):
    done = keyassay("prove", "sound.pem")
    assert done.code == 0
    assert "nothing was found, which is no proof that the key is sound" in done.out


def test_what_cannot_be_read_says_so(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIB!!!\n-----END CERTIFICATE-----\n")
    done = keyassay("prove", "bad.pem")
    assert done.code == 3
    assert "not assessed: " in done.out
    missing = keyassay("prove", "nowhere.pem")
    assert missing.code in (2, 3)


def roca_card(path, seed, bits, root=0):
    """A certificate with a ROCA key, and a state file from which the attack has one unit to do, if wanted."""
    p, q, a, b = roca_key(seed, bits)
    public = rsa.RSAPublicNumbers(65537, p * q).public_key()
    path.write_bytes(pem(certificate(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "card")))
    if root:
        attack = RocaAttack(p * q, path.with_suffix(".json"))
        attack.done = root_of(roca.Search(p * q), (a, b)) // UNIT * UNIT
        attack._write()
    return p, q


def test_a_roca_key_is_factored_and_proved(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    p, q = roca_card(tmp_path / "card.pem", 7, 512, root=1)
    done = keyassay("prove", "card.pem", "--attack", "--jobs", 1, "--state", "card.json")
    assert done.code == 1
    assert "512 bits, 1 process: at most about" in done.err
    assert "were done before" in done.err
    assert "rsa-roca: broken, proven" in done.out
    assert f"{min(p, q):X}" in done.out
    assert repeat(done.out, tmp_path) == ["0", "True", "the same key", "Signature Verified Successfully"]
    assert not (tmp_path / "card.json").exists()


def test_the_state_of_an_attack_is_in_the_data_folder(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    p, q = roca_card(tmp_path / "card.pem", 7, 512)

    def interrupted(self):
        self._write()
        raise KeyboardInterrupt

    monkeypatch.setattr(RocaAttack, "run", interrupted)
    done = keyassay("prove", "card.pem", "--attack", "--jobs", 1)
    assert done.code == 130
    assert "the same command goes on" in done.err
    assert state_file(p * q).is_relative_to(tmp_path / "data")
    assert state_file(p * q).exists()


@pytest.mark.parametrize(
    ("bits", "says"), [(768, "too short for any feasible attack"), (1024, "97 days"), (2048, "140 CPU years")]
)
def test_larger_roca_keys_are_refused_with_what_they_would_cost(keyassay, tmp_path, monkeypatch, bits, says):
    monkeypatch.chdir(tmp_path)
    roca_card(tmp_path / "card.pem", 7, bits)
    done = keyassay("prove", "card.pem", "--attack")
    assert done.code == 2
    assert f"a ROCA key of {bits} bits is not attacked" in done.err
    assert says in done.err
    assert keyassay("prove", "card.pem").code == 1


def test_a_state_of_another_key_is_refused(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roca_card(tmp_path / "one.pem", 7, 512, root=1)
    roca_card(tmp_path / "two.pem", 8, 512)
    done = keyassay("prove", "two.pem", "--attack", "--state", "one.json")
    assert done.code == 2
    assert "another attack" in done.err


def test_there_is_nothing_to_attack_in_other_keys(keyassay, fleet):
    done = keyassay("prove", "fleet/broken.pem", "--attack")
    assert done.code == 2
    assert "fleet/broken.pem holds no key with a finding of rsa-roca: there is nothing to attack" in done.err


@pytest.mark.parametrize("words", [("--jobs", "2"), ("--state", "x.json"), ("--attack", "--check", "rsa-close-primes")])
def test_options_that_do_not_go_together(keyassay, fleet, words):
    done = keyassay("prove", "fleet/broken.pem", *words)
    assert done.code == 2
    assert "--attack" in done.err
