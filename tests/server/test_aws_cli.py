"""The aws command line, unmodified and in an environment of its own, in front of a running server.

Each test is a script as people write them for AWS IoT, with nothing but ``--endpoint-url`` added (by the environment).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fleet_keys
import weak_devices
from auditing import DEVICE_KEYS
from live_server import running
from two_accounts import SECRET, A

PROGRAM = Path(__file__).resolve().parent.parent.parent / ".venv-awscli" / "bin" / "aws"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM.exists(), reason="`python3 dev.py test` installs the aws command line"),
]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Aws = Callable[..., Done]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """Calls ``aws iot ...``; all tests of the module share a server, each uses names of its own."""
    folder = tmp_path_factory.mktemp("aws")
    with running(folder) as server:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": A.name,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": server.settings.region,
            "AWS_ENDPOINT_URL_IOT": server.addresses[0],
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

        def call(*words: str | Path, check: bool = True, **more: str) -> Done:
            done = subprocess.run(
                [PROGRAM, "iot", *map(str, words)],
                check=False,
                capture_output=True,
                text=True,
                env={**environment, **more},
                timeout=60,
            )
            assert not check or done.returncode == 0, done.stderr
            return Done(done.returncode, done.stdout, done.stderr)

        yield call


def a_file(folder: Path, name: str, content: str) -> str:
    """A file, as the command line takes its content."""
    (folder / name).write_text(content)
    return f"file://{folder / name}"


def registered(aws: Aws, folder: Path, subject: str, status: str = "ACTIVE", **more: Any) -> tuple[str, str]:
    """A new certificate's id and ARN."""
    one = fleet_keys.device(subject, **more)
    pem = a_file(folder, "device.pem", one.pem)
    words = ("--certificate-pem", pem, "--status", status, "--query", "certificateArn", "--output", "text")
    return one.id, aws("register-certificate-without-ca", *words).out.strip()


def test_an_authority_and_its_device(aws: Aws, tmp_path: Path) -> None:
    """Register a CA the way of AWS's guide, then a certificate that it signed."""
    root = fleet_keys.authority("Command line CA", 700)
    code = aws("get-registration-code", "--query", "registrationCode", "--output", "text").out.strip()
    assert len(code) == 64
    proof = fleet_keys.certificate(code, fleet_keys.ec_key(701), root)
    ca = a_file(tmp_path, "ca.pem", root.pem)
    made = aws(
        "register-ca-certificate",
        *("--ca-certificate", ca),
        *("--verification-certificate", a_file(tmp_path, "proof.pem", proof.pem)),
        "--set-as-active",
        "--allow-auto-registration",
        *("--tags", "Key=site,Value=north"),
    ).json
    assert made["certificateId"] == root.id
    described = aws("describe-ca-certificate", "--certificate-id", root.id).json["certificateDescription"]
    assert (described["status"], described["autoRegistrationStatus"]) == ("ACTIVE", "ENABLE")
    tags = aws("list-tags-for-resource", "--resource-arn", made["certificateArn"], "--output", "text").out
    assert tags.split() == ["TAGS", "site", "north"]
    device = fleet_keys.device("command-line-device", root)
    aws(
        "register-certificate",
        *("--certificate-pem", a_file(tmp_path, "device.pem", device.pem)),
        *("--ca-certificate-pem", ca),
        *("--status", "INACTIVE"),
    )
    listed = aws("list-certificates-by-ca", "--ca-certificate-id", root.id).json["certificates"]
    assert [row["certificateId"] for row in listed] == [device.id]
    aws("update-ca-certificate", "--certificate-id", root.id, "--new-status", "INACTIVE")
    assert root.id in aws("list-ca-certificates", "--query", "certificates[?status=='INACTIVE'].certificateId").out


def test_a_thing_with_its_certificate_and_policy(aws: Aws, tmp_path: Path) -> None:
    _, arn = registered(aws, tmp_path, "thing-device")
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:*:*:client/pump-1"}],
    }
    aws(
        "create-policy",
        "--policy-name",
        "pumps",
        "--policy-document",
        a_file(tmp_path, "policy.json", json.dumps(document)),
    )
    aws("attach-policy", "--policy-name", "pumps", "--target", arn)
    aws("create-thing-type", "--thing-type-name", "pump")
    aws(
        "create-thing",
        *("--thing-name", "pump-1", "--thing-type-name", "pump"),
        *("--attribute-payload", '{"attributes": {"site": "north"}}'),
    )
    aws("attach-thing-principal", "--thing-name", "pump-1", "--principal", arn)
    aws("create-thing-group", "--thing-group-name", "north")
    aws("add-thing-to-thing-group", "--thing-name", "pump-1", "--thing-group-name", "north")
    thing = aws("describe-thing", "--thing-name", "pump-1").json
    assert (thing["thingTypeName"], thing["attributes"], thing["version"]) == ("pump", {"site": "north"}, 1)
    text = ("--output", "text")
    assert aws("list-thing-principals", "--thing-name", "pump-1", *text).out.split() == ["PRINCIPALS", arn]
    assert aws("list-attached-policies", "--target", arn, "--query", "policies[].policyName", *text).out == "pumps\n"
    assert aws("list-things-in-thing-group", "--thing-group-name", "north", *text).out.split() == ["THINGS", "pump-1"]
    policy = aws("get-policy", "--policy-name", "pumps", "--query", "policyDocument", *text).out
    assert json.loads(policy) == document
    # In use: refused, until it is detached.
    refused = aws("delete-policy", "--policy-name", "pumps", check=False)
    assert (refused.code, "(DeleteConflictException)" in refused.err) == (255, True)
    aws("detach-policy", "--policy-name", "pumps", "--target", arn)
    aws("delete-policy", "--policy-name", "pumps")
    aws("detach-thing-principal", "--thing-name", "pump-1", "--principal", arn)
    aws("delete-thing", "--thing-name", "pump-1")


def test_what_a_certificate_says_and_how_its_status_changes(aws: Aws, tmp_path: Path) -> None:
    device, arn = registered(aws, tmp_path, "status-device")
    assert arn.endswith(f":cert/{device}")
    one = ("--certificate-id", device)
    described = aws("describe-certificate", *one).json["certificateDescription"]
    assert described["certificatePem"] == (tmp_path / "device.pem").read_text()
    assert described["creationDate"] <= described["lastModifiedDate"]
    query = ("--query", "certificateDescription.[status,certificateMode]", "--output", "text")
    assert aws("describe-certificate", *one, *query).out == "ACTIVE\tSNI_ONLY\n"
    aws("update-certificate", *one, "--new-status", "REVOKED")
    assert aws("describe-certificate", *one, *query).out == "REVOKED\tSNI_ONLY\n"
    aws("delete-certificate", *one)
    gone = aws("describe-certificate", *one, check=False)
    assert "(ResourceNotFoundException) when calling the DescribeCertificate operation" in gone.err


def test_errors_have_the_exit_codes_of_aws(aws: Aws, tmp_path: Path) -> None:
    """255 for what the service or the signature refuses; 2 for what the client itself refuses."""
    expired = a_file(tmp_path, "expired.pem", fleet_keys.device("expired", days=(-9, -1)).pem)
    for done, name in (
        (aws("register-certificate-without-ca", "--certificate-pem", expired, check=False), "CertificateValidation"),
        (aws("describe-certificate", "--certificate-id", "z" * 64, check=False), "InvalidRequest"),
        (aws("describe-certificate", "--certificate-id", "0" * 64, check=False), "ResourceNotFound"),
        (aws("list-certificates", check=False, AWS_SECRET_ACCESS_KEY="wrong" * 8), "InvalidSignature"),
        (aws("list-jobs", check=False), "NotImplemented"),
    ):
        assert f"({name}Exception)" in done.err
        assert (done.code, done.out) == (255, "")
    assert aws("describe-certificate", check=False).code == 2


def test_pages_follow_each_other(aws: Aws, tmp_path: Path) -> None:
    """All pages by themselves, some by --max-items and its token, single ones by the service's own parameters."""
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        aws("create-thing", "--thing-name", name)
    every = aws("list-things", "--page-size", "2", "--query", "things[].thingName").json
    assert set(names) <= set(every)
    seen: list[str] = []
    token: tuple[str, ...] = ()
    while len(seen) <= len(every):
        page = aws("list-things", "--page-size", "2", "--max-items", "3", *token).json
        seen += [row["thingName"] for row in page["things"]]
        if "NextToken" not in page:
            break
        assert len(page["things"]) == 3
        token = ("--starting-token", page["NextToken"])
    assert seen == every
    made = {registered(aws, tmp_path, f"page-{number}", "INACTIVE")[0] for number in range(2)}
    first = aws("list-certificates", "--page-size", "1").json
    second = aws("list-certificates", "--page-size", "1", "--marker", first["nextMarker"]).json
    assert first["certificates"][0]["certificateId"] != second["certificates"][0]["certificateId"]
    assert made <= set(aws("list-certificates", "--query", "certificates[].certificateId").json)


def test_audit_suppress_and_mitigate(aws: Aws, tmp_path: Path) -> None:
    """A weak device is found by an audit, mitigated, and a suppression is kept."""
    device, _ = registered(aws, tmp_path, "weak-device", key=weak_devices.weak_key(40))
    role = "arn:aws:iam::111111111111:role/audit"
    enabled = json.dumps({DEVICE_KEYS: {"enabled": True}})
    aws("update-account-audit-configuration", "--role-arn", role, "--audit-check-configurations", enabled)
    start = ("start-on-demand-audit-task", "--target-check-names", DEVICE_KEYS, "--output", "text")
    task = aws(*start).out.strip()
    audited = until(lambda: aws("describe-audit-task", "--task-id", task).json)
    assert audited["auditDetails"][DEVICE_KEYS]["checkRunStatus"] == "COMPLETED_NON_COMPLIANT"
    mine = f"findings[?nonCompliantResource.resourceIdentifier.deviceCertificateId=='{device}'].findingId"
    found = aws("list-audit-findings", "--task-id", task, "--query", mine, "--output", "text").out.split()
    assert len(found) == 1
    aws(
        "create-audit-suppression",
        *("--check-name", DEVICE_KEYS, "--resource-identifier", f"deviceCertificateId={device}"),
        *("--suppress-indefinitely", "--description", "replaced in May"),
    )
    listed = aws("list-audit-suppressions", "--query", "suppressions[].description", "--output", "text").out
    assert listed == "replaced in May\n"
    aws(
        "create-mitigation-action",
        *("--action-name", "deactivate", "--role-arn", role),
        *("--action-params", "updateDeviceCertificateParams={action=DEACTIVATE}"),
    )
    aws(
        "start-audit-mitigation-actions-task",
        *("--task-id", "by-cli", "--target", f"findingIds={found[0]}"),
        *("--audit-check-to-actions-mapping", f"{DEVICE_KEYS}=deactivate"),
    )
    done = until(lambda: aws("describe-audit-mitigation-actions-task", "--task-id", "by-cli").json)
    assert done["taskStatus"] == "COMPLETED"
    status = ("--query", "certificateDescription.status", "--output", "text")
    assert aws("describe-certificate", "--certificate-id", device, *status).out == "INACTIVE\n"


def until(describe: Callable[[], Any]) -> Any:
    """A task once it is no longer in progress."""
    deadline = time.monotonic() + 120
    while (task := describe())["taskStatus"] == "IN_PROGRESS":
        assert time.monotonic() < deadline
        time.sleep(1)
    return task
