"""Mitigation as its users meet it: boto3 in front, workers behind, a receiver at the end."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from standardwebhooks import Webhook

import fleet_keys
from audit_findings import DEVICE_KEYS, audit, device
from keyassay.errors import KeyassayError
from live_server import client, running
from two_accounts import SECRET, A
from webhook_receiver import receiving

HOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ROLE = "arn:aws:iam::111111111111:role/mitigation"


def signed(server: Any, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer of an endpoint of our own."""
    data = b"" if body is None else json.dumps(body).encode()
    request = AWSRequest(method, server.addresses[0] + path, data=data)
    SigV4Auth(Credentials(A.name, SECRET), "iot", server.settings.region).add_auth(request)
    ready = urllib.request.Request(request.url, data or None, dict(request.headers.items()), method=method)
    with urllib.request.urlopen(ready, timeout=20) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def until(question: Any) -> None:
    """Ask until the answer is yes."""
    end = time.monotonic() + 30
    while not question():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_weak_certificate_is_taken_out_of_service(database_url: str, tmp_path: Path) -> None:
    one = fleet_keys.device()
    with receiving() as receiver:
        (tmp_path / "secrets").write_text(f"{receiver.url} {HOOK_SECRET}\n")
        settings = {"publish_to": (receiver.url,), "webhook_secrets": tmp_path / "secrets"}
        with running(tmp_path, database=database_url, **settings) as server:
            api = client(server)
            api.register_certificate_without_ca(certificatePem=one.pem, status="ACTIVE")
            api.create_thing(thingName="lamp")
            api.attach_thing_principal(thingName="lamp", principal=server.registry.arn(A.account_id, f"cert/{one.id}"))
            api.create_thing_group(thingGroupName="quarantine")
            found = device(one.id)
            audit_id = audit(server.registry, [found])
            for name, params in (
                ("tell", {"publishFindingToSnsParams": {"topicArn": receiver.url}}),
                ("quarantine", {"addThingsToThingGroupParams": {"thingGroupNames": ["quarantine"]}}),
                ("deactivate", {"updateDeviceCertificateParams": {"action": "DEACTIVATE"}}),
            ):
                made = api.create_mitigation_action(actionName=name, roleArn=ROLE, actionParams=params)
                described = api.describe_mitigation_action(actionName=name)
                assert (described["actionId"], described["actionParams"]) == (made["actionId"], params)
                assert described["creationDate"] == described["lastModifiedDate"]
            names = [row["actionName"] for row in api.list_mitigation_actions()["actionIdentifiers"]]
            assert names == ["deactivate", "quarantine", "tell"]
            target = {"auditTaskId": audit_id}
            mapping = {DEVICE_KEYS: ["tell", "quarantine", "deactivate"]}
            body = {"target": target, "auditCheckToActionsMapping": mapping}
            (planned,) = signed(server, "POST", "/keyassay/v1/mitigation/plan", body)["findings"]
            assert [step["actionName"] for step in planned["steps"]] == mapping[DEVICE_KEYS]
            assert planned["steps"][1]["things"] == ["lamp"]
            with pytest.raises(urllib.error.HTTPError) as raised:
                signed(server, "POST", "/keyassay/v1/mitigation/plan", {**body, "target": {}})
            assert raised.value.code == 400
            raised.value.close()
            task = {"taskId": "task-1", "target": target, "auditCheckToActionsMapping": mapping}
            for _ in range(2):
                assert api.start_audit_mitigation_actions_task(**task, clientRequestToken="t")["taskId"] == "task-1"
            with pytest.raises(api.exceptions.TaskAlreadyExistsException):
                api.start_audit_mitigation_actions_task(**task, clientRequestToken="u")

            def describe() -> dict[str, Any]:
                answer: dict[str, Any] = api.describe_audit_mitigation_actions_task(taskId="task-1")
                return answer

            until(lambda: describe()["taskStatus"] != "IN_PROGRESS")
            described = describe()
            assert described["taskStatus"] == "COMPLETED"
            assert described["taskStatistics"] == {
                DEVICE_KEYS: {
                    "totalFindingsCount": 1,
                    "failedFindingsCount": 0,
                    "succeededFindingsCount": 1,
                    "skippedFindingsCount": 0,
                    "canceledFindingsCount": 0,
                }
            }
            assert (described["target"], described["auditCheckToActionsMapping"]) == (target, mapping)
            assert [one["name"] for one in described["actionsDefinition"]] == mapping[DEVICE_KEYS]
            executions = api.list_audit_mitigation_actions_executions(taskId="task-1", findingId=found.id)
            assert [row["status"] for row in executions["actionsExecutions"]] == ["COMPLETED"] * 3
            listed = api.list_audit_mitigation_actions_tasks(
                startTime=described["startTime"], endTime=described["endTime"], auditTaskId=audit_id
            )
            assert [row["taskId"] for row in listed["tasks"]] == ["task-1"]
            with pytest.raises(api.exceptions.InvalidRequestException):
                api.cancel_audit_mitigation_actions_task(taskId="task-1")
            with pytest.raises(api.exceptions.ResourceNotFoundException):
                api.cancel_audit_mitigation_actions_task(taskId="task-2")
            assert api.describe_certificate(certificateId=one.id)["certificateDescription"]["status"] == "INACTIVE"
            assert api.list_things_in_thing_group(thingGroupName="quarantine")["things"] == ["lamp"]
            ((headers, sent),) = receiver.got
            event = Webhook(HOOK_SECRET).verify(sent, headers)
            described = api.describe_audit_finding(findingId=found.id)["finding"]
            assert event["data"]["taskStartTime"] == described["taskStartTime"].timestamp()
            assert event["data"]["nonCompliantResource"] == described["nonCompliantResource"]

            # a message that goes nowhere
            api.update_mitigation_action(
                actionName="tell", actionParams={"publishFindingToSnsParams": {"topicArn": "arn:aws:sns:x:1:y"}}
            )
            task |= {"taskId": "task-2", "auditCheckToActionsMapping": {DEVICE_KEYS: ["tell"]}}
            api.start_audit_mitigation_actions_task(**task)
            until(lambda: signed(server, "GET", "/keyassay/v1/dead-letters")["deadLetters"])
            (letter,) = signed(server, "GET", "/keyassay/v1/dead-letters")["deadLetters"]
            assert (letter["target"], letter["message"]["findingId"]) == ("arn:aws:sns:x:1:y", found.id)
            replay = f"/keyassay/v1/dead-letters/{letter['id']}/replay"
            assert signed(server, "POST", replay, {}) == {"id": letter["id"]}
            api.delete_mitigation_action(actionName="tell")
            api.delete_mitigation_action(actionName="tell")


@pytest.mark.parametrize("targets", [("nowhere",), ("https://hooks.example/",), ("http://hooks.example/",)])
def test_targets_are_checked_before_the_start(tmp_path: Path, targets: tuple[str, ...]) -> None:
    with pytest.raises(KeyassayError), running(tmp_path, publish_to=targets):
        pass
    with pytest.raises(KeyassayError), running(tmp_path, webhook_secrets=tmp_path / "none"):
        pass
