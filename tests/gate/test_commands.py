"""``keyassay gate`` from end to end: a server, a gate that asks its API, and the commands that look at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from keyassay.cli.main import commands
from keyassay.errors import KeyassayError
from keyassay.gate import running as gate_running
from keyassay.registry import accounts
from keyassay.registry.accounts import Role
from keyassay.server.opening import open_registry
from live_gate import broker, free_port, key_pem, until
from live_server import running
from two_accounts import SECRET, A


def environment(key: str, secret: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1"}


def call(*arguments: str, code: int | None = 0) -> str:
    result = CliRunner().invoke(commands, ["gate", *arguments], env=environment(A.name, SECRET), standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert code is None or (result.return_value or 0) == code, result.output
    return result.output


@pytest.mark.slow
def test_run_check_status_and_retire(tmp_path: Path) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="kg-") as folder, running(tmp_path, workers=0) as server:
        registry = open_registry(server.settings)
        key = accounts.create_key(registry, A, Role.GATE)
        registry.database.close()
        cert, authority = Path(folder) / "server.pem", Path(folder) / "ca.crt"
        cert.write_text(broker().pem + key_pem(broker().key))
        authority.write_text(broker().pem)
        state, log = Path(folder) / "g", tmp_path / "gate.log"
        command = [sys.executable, "-m", "keyassay.cli.main", "gate", "run", "--server-cert", str(cert)]
        command += ["--folder", str(state), "--listen", f"127.0.0.1:{port}", "--name", "north"]
        command += ["--endpoint-url", server.addresses[0]]
        with log.open("w") as output:
            gate = subprocess.Popen(
                command,
                env={**os.environ, **environment(key.access_key_id, key.secret_access_key)},
                stdout=output,
                stderr=output,
            )
        try:
            until(lambda: "gate is open" in log.read_text() or gate.poll() is not None, 60)
            assert gate.poll() is None, log.read_text()
            url = ("--endpoint-url", server.addresses[0])
            until(lambda: "up to date" in call("status", *url, code=None), 60)
            assert json.loads(call("status", "--json", *url))["gates"][0]["name"] == "north"
            said = call("check", f"localhost:{port}", "--broker-ca", str(authority), *url)
            assert "FAILED" not in said
            assert "revoked: session closed after" in said
            assert "north" in call("status", *url)
            call("retire", "north", *url)
        finally:
            gate.send_signal(signal.SIGTERM)
            assert gate.wait(60) == 0
        assert "Traceback" not in log.read_text()
        left = subprocess.run(["pgrep", "-f", str(state)], check=False, capture_output=True, text=True)
        assert left.stdout == ""


def test_render(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kg-") as folder:
        cert = Path(folder) / "server.pem"
        cert.write_text(broker().pem + key_pem(broker().key))
        said = call("render", "--server-cert", str(cert), "--folder", folder + "/g", "--source-rate", "500",
                    "--stale-after", "3600", "--small-keys", "--foreign-purpose", "--broker", "127.0.0.1:1883")  # fmt: skip
        assert said.split() == [folder + "/g/haproxy.cfg"]
        checked = subprocess.run(
            [gate_running.program("haproxy"), "-c", "-f", folder + "/g/haproxy.cfg"], check=False, capture_output=True
        )
        assert checked.returncode == 0, checked.stderr.decode()


def test_what_is_missing_is_said(monkeypatch: Any) -> None:
    monkeypatch.setattr(gate_running.shutil, "which", lambda *_args, **_more: None)
    with pytest.raises(KeyassayError) as caught:
        gate_running.program("haproxy")
    assert "apt-get install haproxy" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(("--listen", "nonsense"), "is no HOST:PORT"), (("--folder", "/tmp/" + "x" * 80), "is too long for the sockets"),
     (("--folder", "/tmp/a b"), "cannot stand in HAProxy's configuration")],
)  # fmt: skip
def test_settings_that_cannot_work(tmp_path: Path, arguments: tuple[str, ...], problem: str) -> None:
    cert = Path("/tmp/kg-none.pem")
    cert.write_text("")
    try:
        with pytest.raises(KeyassayError, match=problem):
            call("render", "--server-cert", str(cert), *arguments)
    finally:
        cert.unlink()
