"""Certificates go in from files and from other registries, through the API of a running server."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import moto
import pytest

import fleet_keys
from keyassay.cli import connection
from keyassay.registry import authorities, certificates
from live_server import client, running
from two_accounts import SECRET, A


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", A.name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def test_register(keyassay, tmp_path: Path, credentials: None) -> None:
    folder = tmp_path / "fleet"
    folder.mkdir()
    devices = [fleet_keys.device(f"device-{number}") for number in range(3)]
    (folder / "two.pem").write_text(devices[0].pem + devices[1].pem)
    (folder / "old.pem").write_text(fleet_keys.device("old", days=(-9, -1)).pem)
    (folder / "rubbish.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with running(tmp_path) as server:
        where = ["--endpoint-url", server.addresses[0]]
        done = keyassay("register", str(folder), "--without-ca", "--status", "ACTIVE", *where)
        assert done.code == 1
        assert "1 refused, 2 registered, 1 unreadable" in done.out
        assert "expired" in done.out
        assert {row["status"] for row in client(server).list_certificates()["certificates"]} == {"ACTIVE"}
        again = keyassay("register", str(folder / "two.pem"), "--without-ca", "--json", *where)
        assert (again.code, json.loads(again.out)["counts"]) == (0, {"was there": 2})
        (tmp_path / "third.pem").write_text(devices[2].pem)
        unknown = keyassay("register", str(tmp_path / "third.pem"), *where)
        assert (unknown.code, "no registered authority" in unknown.out) == (1, True)


def test_no_connection_and_no_permission(keyassay, tmp_path: Path, credentials, monkeypatch) -> None:
    (tmp_path / "one.pem").write_text(fleet_keys.device().pem)
    nobody = keyassay("register", str(tmp_path / "one.pem"), "--endpoint-url", "http://127.0.0.1:9")
    assert (nobody.code, "keyassay serve" in nobody.err) == (2, True)
    with running(tmp_path) as server:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 9)
        wrong = keyassay("register", str(tmp_path / "one.pem"), "--endpoint-url", server.addresses[0])
        assert (wrong.code, "InvalidSignatureException" in wrong.err) == (2, True)
        assert "wrong" * 9 not in wrong.err


def test_import_from_another_registry(keyassay, tmp_path: Path, credentials: None) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with running(tmp_path / "a") as source, running(tmp_path / "b") as target:
        ids = {}
        for number, status in enumerate(["ACTIVE", "INACTIVE", "REVOKED", "ACTIVE", "ACTIVE"]):
            one = fleet_keys.device(f"device-{number}")
            ids[certificates.register_without_authority(source.registry, A, one.pem, status=status).id] = status
        ca = fleet_keys.authority("Shared CA", 300)
        authorities.register(source.registry, A, ca.pem, mode="SNI_ONLY", set_as_active=True)
        state = tmp_path / "state.json"
        words = ["import", "aws", "--source-endpoint-url", source.addresses[0], "--endpoint-url", target.addresses[0]]
        done = keyassay(*words, "--state", str(state), "--json")
        assert (done.code, json.loads(done.out)["counts"]) == (
            0,
            {"authorities imported": 1, "certificates imported": 5},
        )
        there = client(target).list_certificates()["certificates"]
        assert {row["certificateId"]: row["status"] for row in there} == ids
        assert authorities.describe(target.registry, A, ca.id)["status"] == "ACTIVE"
        again = keyassay(*words, "--json")
        assert json.loads(again.out)["counts"] == {"authorities were here": 1, "certificates were here": 5}
        finished = keyassay(*words, "--state", str(state))
        assert "nothing was there" in finished.out  # the state says that all was read
        state.write_text("nonsense")
        assert keyassay(*words, "--state", str(state)).code == 2


def test_import_from_aws_as_moto_plays_it(keyassay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto stands for AWS: it answers boto3 inside this process, and lets requests to our server through."""
    profile = f"[ours]\naws_access_key_id = {A.name}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(profile)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    passing = {"core": {"passthrough": {"urls": [r"http://127\.0\.0\.1.*"]}}}
    with running(tmp_path) as server, moto.mock_aws(config=passing):
        there = boto3.client("iot", region_name="eu-west-1")
        devices = [fleet_keys.device(f"device-{number}") for number in range(3)]
        for one, status in zip(devices, ("ACTIVE", "INACTIVE", "REVOKED"), strict=True):
            there.register_certificate_without_ca(certificatePem=one.pem, status=status)
        where = ["--endpoint-url", server.addresses[0], "--aws-profile", "ours", "--region", "us-east-1"]
        # moto does not know ListCACertificates
        done = keyassay("import", "aws", "--source-region", "eu-west-1", "--without-cas", *where)
        assert (done.code, done.out, done.err) == (0, "3 certificates imported\n", "")
        imported = {row["id"]: row["status"] for row in certificates.listed(server.registry, A).rows}
        assert imported == {devices[0].id: "ACTIVE", devices[1].id: "INACTIVE", devices[2].id: "REVOKED"}


def test_aws_is_aws_even_where_the_environment_names_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an import would read from the registry that it writes to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_IOT", "http://127.0.0.1:8443")
    assert connection.client(None, None, "eu-west-1").meta.endpoint_url == "https://iot.eu-west-1.amazonaws.com"
