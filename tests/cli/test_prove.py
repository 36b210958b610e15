import re
import subprocess

from cryptography.hazmat.primitives.asymmetric import ec

from issuing import certificate, pem, sound_key, spki_of
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
