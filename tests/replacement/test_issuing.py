"""The issuing hook: real commands, each request's once at a time, crashes between the command and the commit."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import update

import audit_findings
import fleet_keys
from asking_devices import Device
from keyassay.registry import authorities
from keyassay.registry.errors import NotConfiguredError
from keyassay.registry.registry import Registry
from keyassay.replacement import automatic, campaigns, issuing
from keyassay.replacement.issuing import Hook, HookError, HookWorker
from keyassay.replacement.states import State
from keyassay.storage import leases, schema
from replacing import old_device, start, unit, work
from two_accounts import A

#: an external authority: the same request id gives the same certificate
ISSUER = """
import datetime, os, pathlib, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
folder = pathlib.Path(sys.argv[1])
with (folder / "calls").open("a") as log:
    log.write(os.environ["KEYASSAY_REQUEST_ID"] + " " + os.environ["KEYASSAY_THING_NAME"] + "\\n")
made = folder / os.environ["KEYASSAY_REQUEST_ID"]
if not made.exists():
    request = x509.load_pem_x509_csr(sys.stdin.buffer.read())
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    made.write_bytes(x509.CertificateBuilder().subject_name(request.subject).issuer_name(ca.subject)
        .public_key(request.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=100))
        .sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
sys.stdout.buffer.write(b"a chain may follow\\n" + made.read_bytes() + (folder / "ca.pem").read_bytes())
"""


@pytest.fixture
def hook(tmp_path: Path, registry: Registry) -> Hook:
    import sys

    made = fleet_keys.authority("External CA", 777)
    (tmp_path / "ca.pem").write_text(made.pem)
    (tmp_path / "ca.key").write_bytes(made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "issue.py").write_text(ISSUER)
    authorities.register(registry, A, made.pem, mode="SNI_ONLY", set_as_active=True)
    return Hook(f"{sys.executable} {tmp_path}/issue.py {tmp_path}", seconds=20)


def announce(registry: Registry, seconds: float = campaigns.HOOK_LASTS) -> None:
    """What a hook's worker says when it starts."""
    leases.announce(registry.database, campaigns.HOOK, "test", seconds)


def begun(registry: Registry) -> str:
    announce(registry)
    replacement_id = start(registry, old_device(registry, "pump"), issuer="hook")
    work(registry)
    return replacement_id


def hook_worker(registry: Registry, hook: Hook) -> HookWorker:
    return HookWorker(registry, hook, structlog.wrap_logger(structlog.testing.CapturingLogger()))


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().split("\n")[:-1]


def test_an_external_authority_issues(registry: Registry, hook: Hook, rows: Any, tmp_path: Path) -> None:
    replacement_id = begun(registry)
    device = Device(registry, "pump")
    for _ in range(2):
        ending, body = device.ask(replacement_id)
        assert (ending, body["reason"]) == ("pending", "issuing")
    by = hook_worker(registry, hook)
    (pending,) = by.pending()
    before = len(rows.all("device_messages"))
    assert by.work(pending)
    assert calls(tmp_path) == [f"{unit(registry, replacement_id, 'pump').request_id} pump"]
    assert len(rows.all("device_messages")) == before + 1
    assert by.pending() == []
    ending, made = device.ask(replacement_id)
    assert ending == "accepted"
    assert x509.load_pem_x509_certificate(made["certificatePem"].encode()).public_key() == device.key.public_key()
    assert made["caPem"] == (tmp_path / "ca.pem").read_text()
    assert unit(registry, replacement_id, "pump").state is State.DELIVERED


def test_nothing_is_started_that_nobody_would_issue(registry: Registry, hook: Hook, rows: Any) -> None:
    old = old_device(registry, "pump")
    document = {"certificateIds": [old]}, {"trustOldKey": True, "issuer": "hook"}
    with pytest.raises(NotConfiguredError, match="--issuing-hook"):
        campaigns.start(registry, A, *document, "a")
    announce(registry, 0)  # one that was here long ago
    with pytest.raises(NotConfiguredError):
        campaigns.start(registry, A, *document, "a")
    assert rows.all("replacements") == []
    stop = threading.Event()
    thread = threading.Thread(target=hook_worker(registry, hook).run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 20
    while not rows.all("leases", name=campaigns.HOOK)[0]["expires_at"] > time.time() * 1000 + 500_000:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    thread.join(20)
    started = campaigns.start(registry, A, *document, "a")
    announce(registry, 0)
    assert campaigns.start(registry, A, *document, "a") == started, "the same request is the same replacement"


def test_a_policy_waits_for_the_hook_that_it_names(registry: Registry, rows: Any) -> None:
    settings = {"trustOldKey": True, "issuer": "hook"}
    with pytest.raises(NotConfiguredError, match="--issuing-hook"):
        automatic.set_policy(registry, A, enabled=True, settings=settings)
    assert automatic.policy(registry, A) is None
    automatic.set_policy(registry, A, enabled=False, settings=settings)
    with pytest.raises(NotConfiguredError):
        automatic.set_policy(registry, A, enabled=True)
    announce(registry)
    made = automatic.set_policy(registry, A, enabled=True)
    assert automatic.policy(registry, A) == made
    announce(registry, 0)
    with_problem = automatic.policy(registry, A)
    assert with_problem is not None
    assert "--issuing-hook" in with_problem["problem"]
    old = old_device(registry, "pump")
    task = audit_findings.audit(registry, [audit_findings.device(old)], status="IN_PROGRESS")
    columns = schema.audit_findings.c
    with registry.database.write(A) as transaction:
        judged = update(schema.audit_findings).where(columns.task_id == task)
        transaction.execute(judged.values(evidence={"class": "broken", "confidence": "proven"}))
        ended = update(schema.audit_tasks).where(schema.audit_tasks.c.id == task)
        transaction.execute(ended.values(status="COMPLETED", ended_at=transaction.now))
    assert automatic.follow(registry, "here", None) is False
    announce(registry)
    assert automatic.follow(registry, "here", None) is True
    assert len(rows.all("replacements")) == 1


def test_a_crash_between_the_command_and_the_commit_is_harmless(
    registry: Registry, hook: Hook, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replacement_id = begun(registry)
    Device(registry, "pump").ask(replacement_id)
    by = hook_worker(registry, hook)
    (pending,) = by.pending()
    with monkeypatch.context() as patched:
        patched.setattr(issuing.units, "attach", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            by.work(pending)
    assert unit(registry, replacement_id, "pump").state is State.PLANNED
    assert len(rows.all("certificates")) == 1
    with registry.database.write(A) as transaction:  # the lease of the dead worker ends
        transaction.execute(update(schema.leases).values(expires_at=0))
    assert hook_worker(registry, hook).work(pending)
    assert len(calls(tmp_path)) == 2
    assert unit(registry, replacement_id, "pump").state is State.ATTACHED


def test_a_request_is_not_at_the_hook_twice_at_once(registry: Registry, tmp_path: Path) -> None:
    replacement_id = begun(registry)
    Device(registry, "pump").ask(replacement_id)
    slow = Hook(f"echo x >> {tmp_path}/calls; sleep 2; false", seconds=20)
    several = [hook_worker(registry, slow) for _ in range(3)]
    (pending,) = several[0].pending()
    threads = [threading.Thread(target=one.work, args=(pending,)) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls(tmp_path) == ["x"]


@pytest.mark.parametrize(
    "command",
    ["false", "echo nothing", "cat", "echo -----BEGIN CERTIFICATE-----; echo AAAA; echo -----END CERTIFICATE-----"],
)
def test_a_hook_that_gives_no_certificate_is_tried_again_and_then_the_unit_fails(
    registry: Registry, command: str
) -> None:
    replacement_id = begun(registry)
    Device(registry, "pump").ask(replacement_id)
    by = hook_worker(registry, Hook(command))
    (pending,) = by.pending()
    assert not by.work(pending)
    assert by.pending() == [], "not at once"
    assert unit(registry, replacement_id, "pump").state is State.PLANNED
    for _ in range(4):
        by.work(pending)
    assert unit(registry, replacement_id, "pump").state is State.FAILED


def test_a_certificate_for_another_key_is_refused(registry: Registry, hook: Hook, tmp_path: Path) -> None:
    replacement_id = begun(registry)
    Device(registry, "pump").ask(replacement_id)
    other = fleet_keys.device(
        "pump", fleet_keys.authority("External CA", 777), key=ec.generate_private_key(ec.SECP256R1())
    )
    (tmp_path / "other.pem").write_text(other.pem)
    by = hook_worker(registry, Hook(f"cat {tmp_path}/other.pem"))
    (pending,) = by.pending()
    assert not by.work(pending)
    found = unit(registry, replacement_id, "pump")
    assert found.state is State.FAILED
    assert "another key" in (found.problem or "")


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(HookError, match="did not end"):
        Hook(f"(sleep 3; touch {tmp_path}/late) & sleep 60", seconds=0.5)(b"", {})
    assert time.monotonic() - began < 10
    time.sleep(3.5)
    assert not (tmp_path / "late").exists()


def test_the_hook_does_not_see_the_servers_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYASSAY_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(HookError):
        Hook(f"env > {tmp_path}/env")(b"", {"KEYASSAY_REQUEST_ID": "1"})
    text = (tmp_path / "env").read_text()
    assert "KEYASSAY_REQUEST_ID=1" in text
    assert "SECRET" not in text


def test_nothing_is_issued_while_it_is_paused(registry: Registry, hook: Hook) -> None:
    replacement_id = begun(registry)
    Device(registry, "pump").ask(replacement_id)
    by = hook_worker(registry, hook)
    (pending,) = by.pending()
    campaigns.pause(registry, A, replacement_id)
    assert by.pending() == []
    assert not by.work(pending)
    assert unit(registry, replacement_id, "pump").state is State.PLANNED


def test_the_worker_works_until_it_is_told_to_stop(registry: Registry, hook: Hook) -> None:
    replacement_id = begun(registry)
    Device(registry, "pump").ask(replacement_id)
    stop = threading.Event()
    thread = threading.Thread(target=hook_worker(registry, hook).run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 20
    while unit(registry, replacement_id, "pump").state is State.PLANNED:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
