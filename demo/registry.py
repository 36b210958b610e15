"""The second half of the demonstration: the sample fleet in a registry, audited and mitigated through AWS IoT's API.

A server of its own is started on a free port of this machine, with a database that is thrown away; boto3 talks to it as
it does to AWS.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/audit"
GROUP = "quarantine"
DEVICE_KEYS = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
CA_KEYS = "CA_CERTIFICATE_KEY_QUALITY_CHECK"
#: seconds that a start, an audit and a mitigation may take on a slow machine
PATIENCE = 300.0
#: requests at a time
AT_ONCE = 8


class DemoError(Exception):
    """The registry did not do what it should."""


@dataclass(frozen=True)
class Server:
    """A running registry, and what a client has to know of it."""

    url: str
    access_key_id: str
    secret: str
    process: subprocess.Popen[str]
    database: str

    def client(self) -> Any:
        """A boto3 client of AWS IoT's API, as for AWS but for the address."""
        return boto3.client(
            "iot",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret,
            config=Config(proxies={}, max_pool_connections=AT_ONCE, retries={"mode": "standard"}),
        )


@contextlib.contextmanager
def serving(program: Path) -> Iterator[Server]:
    """Run ``keyassay serve`` until the block ends.

    Args:
        program: keyassay.

    Raises:
        DemoError: it did not start.
    """
    key, secret = f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
    with tempfile.TemporaryDirectory(prefix="keyassay-demo-") as folder:
        database = f"sqlite:///{folder}/registry.db"
        command = [program, "serve", "--listen", "127.0.0.1:0", "--database", database]
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KEYASSAY_")},
            "KEYASSAY_ACCOUNT_ID": ACCOUNT,
            "KEYASSAY_ACCESS_KEY_ID": key,
            "KEYASSAY_SECRET_ACCESS_KEY": secret,
        }
        log = Path(folder) / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(command, env=variables, stderr=stream, text=True)
        try:
            yield Server(_address(process, log), key, secret, process, database)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Where a server listens, as its log tells; its port is free until it takes it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if told.get("event") == "listening":
                    return str(told["addresses"][0])
        time.sleep(0.1)
    raise DemoError(f"`keyassay serve` did not start:\n{log.read_text()[-2000:]}")


@dataclass
class Filled:
    """What is in the registry."""

    names: dict[str, str] = field(default_factory=dict)  # certificate id -> device
    refused: Counter[str] = field(default_factory=Counter)
    authorities: int = 0
    seconds: float = 0.0


def fill(api: Any, devices: list[tuple[str, bytes]]) -> Filled:
    """Register a fleet: authorities, certificates, a thing for each device, a group.

    Args:
        api: a client.
        devices: name and certificate (DER); those whose names do not end with a number are authorities.
    """
    started = time.monotonic()
    filled = Filled()
    api.create_thing_group(thingGroupName=GROUP)
    for name, der in devices:
        if not name[-1].isdigit() or " " in name:
            api.register_ca_certificate(caCertificate=pem(der), certificateMode="SNI_ONLY", setAsActive=True)
            filled.names[hashlib.sha256(der).hexdigest()] = name
            filled.authorities += 1
    with ThreadPoolExecutor(AT_ONCE) as pool:
        others = [one for one in devices if hashlib.sha256(one[1]).hexdigest() not in filled.names]
        for (name, der), why in zip(others, pool.map(lambda one: _register(api, *one), others), strict=True):
            if why:
                filled.refused[why] += 1
            else:
                filled.names[hashlib.sha256(der).hexdigest()] = name
    filled.seconds = time.monotonic() - started
    return filled


def _register(api: Any, name: str, der: bytes) -> str:
    """Register a device; "", or why that was refused."""
    try:
        made = api.register_certificate_without_ca(certificatePem=pem(der), status="ACTIVE")
    except ClientError as error:
        return str(error.response["Error"]["Message"])
    api.create_thing(thingName=name, attributePayload={"attributes": {"kind": name.partition("-")[0]}})
    api.attach_thing_principal(thingName=name, principal=made["certificateArn"])
    return ""


def pem(der: bytes) -> str:
    """A certificate as the API takes it."""
    text = base64.encodebytes(der).decode().replace("\n", "")
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def audit(api: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Audit all keys: the task as it ended, and its findings."""
    checks = {name: {"enabled": True} for name in (DEVICE_KEYS, CA_KEYS)}
    api.update_account_audit_configuration(roleArn=ROLE, auditCheckConfigurations=checks)
    task_id = api.start_on_demand_audit_task(targetCheckNames=list(checks))["taskId"]
    task = _ended(lambda: api.describe_audit_task(taskId=task_id))
    if task["taskStatus"] != "COMPLETED":
        raise DemoError(f"the audit ended as {task['taskStatus']}")
    pages = []
    token: dict[str, str] = {}
    while True:
        page = api.list_audit_findings(taskId=task_id, maxResults=250, **token)
        pages += page["findings"]
        if "nextToken" not in page:
            return {**task, "taskId": task_id}, pages
        token = {"nextToken": page["nextToken"]}


def reasons(findings: list[dict[str, Any]]) -> set[str]:
    """The reason codes of a scan's findings that make a device certificate noncompliant."""
    return {one["reason_code"] for one in findings if one["class"] == "broken" and one["confidence"] != "likely"}


def of_devices(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings of an audit that are about device certificates, not authorities."""
    return [one for one in findings if one["checkName"] == DEVICE_KEYS]


def certificate_of(finding: dict[str, Any]) -> str:
    """The id of the certificate that a finding is about."""
    return str(next(iter(finding["nonCompliantResource"]["resourceIdentifier"].values())))


def mitigate(api: Any, audit_task_id: str) -> dict[str, Any]:
    """Put the things of weak device certificates into the group, and deactivate the certificates: the task's counts."""
    steps = {
        "to-quarantine": {"addThingsToThingGroupParams": {"thingGroupNames": [GROUP]}},
        "deactivate": {"updateDeviceCertificateParams": {"action": "DEACTIVATE"}},
    }
    for name, params in steps.items():
        api.create_mitigation_action(actionName=name, roleArn=ROLE, actionParams=params)
    api.start_audit_mitigation_actions_task(
        taskId="demo",
        target={"auditTaskId": audit_task_id},
        auditCheckToActionsMapping={DEVICE_KEYS: list(steps)},
        clientRequestToken=secrets.token_hex(16),
    )
    task = _ended(lambda: api.describe_audit_mitigation_actions_task(taskId="demo"))
    if task["taskStatus"] != "COMPLETED":
        raise DemoError(f"the mitigation ended as {task['taskStatus']}: {task['taskStatistics']}")
    counts: dict[str, Any] = task["taskStatistics"][DEVICE_KEYS]
    return counts


def _ended(describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A task once it is no longer in progress."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        task = describe()
        if task["taskStatus"] != "IN_PROGRESS":
            return task
        time.sleep(0.2)
    raise DemoError(f"a task did not end within {PATIENCE:.0f} s")


def statuses(api: Any) -> dict[str, str]:
    """Certificate id -> status, of all device certificates."""
    pages = api.get_paginator("list_certificates").paginate(PaginationConfig={"PageSize": 250})
    return {row["certificateId"]: row["status"] for page in pages for row in page["certificates"]}


def quarantined(api: Any) -> set[str]:
    """Names of the things in the group."""
    pages = api.get_paginator("list_things_in_thing_group").paginate(thingGroupName=GROUP)
    return {name for page in pages for name in page["things"]}
