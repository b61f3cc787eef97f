"""Access keys of users of IAM, replaced as secrets are, against a service that checks signatures."""

from __future__ import annotations

from typing import Any

from tests.gateway.aws import MOUNT, ready, service, target
from tests.gateway.aws_target import Target
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok
from tests.gateway.rotations import configured, ended, fields, rotated

__all__ = ["ready", "service", "target"]  # the fixtures

OPTIONS = {"root": f"{MOUNT}/config/root", "user": "app"}


async def app(node: Node, target: Target) -> dict[str, Any]:
    """Make a user of IAM whose key is a secret that is rotated, and return the secret."""
    target.iam().create_user(UserName="app")
    made = target.iam().create_access_key(UserName="app")["AccessKey"]
    held = {
        "access_key": made["AccessKeyId"],
        "secret_key": made["SecretAccessKey"],
        "region": "eu-central-1",
    }
    await ok(node, "POST", "secrets/app", {"data": held})
    await configured(node, rotator="aws-access-key", options=OPTIONS)
    return held


def opens(target: Target, held: dict[str, Any]) -> bool:
    """Tell whether AWS takes what a secret holds."""
    return target.opens({**held, "security_token": None})


async def test_a_key_is_made_proven_promoted_and_the_old_one_removed(ready: Node, target: Target) -> None:
    """After a run the secret has a key that AWS takes, and the old one is gone."""
    old = await app(ready, target)
    run = await rotated(ready)
    assert run["outcome"] == "done", run
    new = await fields(ready)
    assert new["access_key"] != old["access_key"]
    assert new["region"] == "eu-central-1"
    assert target.keys("app") == {new["access_key"]}
    assert (opens(target, new), opens(target, old)) == (True, False)
    told = str(await entries(ready.settings.database_url))
    assert new["secret_key"] not in told
    await ledger_is_good(ready)


async def test_a_lost_answer_leaves_no_key_and_a_second_key_is_left_alone(
    ready: Node, target: Target
) -> None:
    """A key whose secret was lost is removed by the next try; with two keys there is no run at all."""
    await ok(ready, "POST", f"{MOUNT}/config/root", {"max_retries": 0})
    old = await app(ready, target)
    with target.losing_answers("create_access_key"):
        begun = await ok(ready, "POST", "sys/rotation/run/secrets/app")
        while len(target.keys("app")) < 2:
            await ok(ready, "GET", "sys/rotation/config/secrets/app")
    run = await ended(ready, begun["run"])
    assert run["outcome"] == "done", run
    new = await fields(ready)
    assert target.keys("app") == {new["access_key"]}
    assert not opens(target, old)
    target.iam().create_access_key(UserName="app")
    dry = await ok(ready, "POST", "sys/rotation/run/secrets/app", {"dry_run": True})
    assert (dry["possible"], "two access keys" in dry["problem"]) == (False, True), dry
    assert opens(target, new)
    await configured(ready, rotator="aws-access-key", options={**OPTIONS, "user": "secrethub"})
    dry = await ok(ready, "POST", "sys/rotation/run/secrets/app", {"dry_run": True})
    assert (dry["possible"], "rotate-root only" in dry["problem"]) == (False, True), dry


async def test_whoever_has_a_user_rotated_may_change_who_we_are(ready: Node, target: Target) -> None:
    """The right to a secret alone does not lend the power of a mount's key."""
    rights = native("sys/rotation/config/**", "secrets/**", capabilities=("update", "create", "read"))
    rights["statements"].append({"effect": "deny", "paths": [f"{MOUNT}/**"], "capabilities": ["*"]})
    token = await ready.token("app", rights)
    await ok(ready, "POST", "secrets/app", {"data": {"access_key": "a", "secret_key": "b"}})
    body = {"rotator": "aws-access-key", "options": {**OPTIONS, "user": "secrethub"}}
    answer = await ready.call("POST", "sys/rotation/config/secrets/app", token, json=body)
    assert answer.status_code == 403, answer.text


async def test_aws_that_does_not_answer_begins_no_run(ready: Node, target: Target) -> None:
    """Who asks for a run or a dry run then is told so, and the secret stays; afterwards it can be run."""
    await ok(ready, "POST", f"{MOUNT}/config/root", {"max_retries": 0})
    old = await app(ready, target)
    with target.losing_answers("list_access_keys"):
        dry = await ok(ready, "POST", "sys/rotation/run/secrets/app", {"dry_run": True})
        assert (dry["possible"], "did not answer in time" in dry["problem"]) == (False, True), dry
        answer = await ready.call("POST", "sys/rotation/run/secrets/app")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert await fields(ready) == old
    assert (await rotated(ready))["outcome"] == "done"


async def test_a_schedule_leaves_aws_alone_that_does_not_answer(ready: Node, target: Target) -> None:
    """A run that cannot even be planned is begun a while later, and the ledger has it once."""
    await ok(ready, "POST", f"{MOUNT}/config/root", {"max_retries": 0})
    old, url = await app(ready, target), ready.settings.database_url
    with target.losing_answers("list_access_keys"):
        await configured(ready, rotator="aws-access-key", options=OPTIONS, every="1s")

        async def put_off() -> Any:
            return await sql(url, "SELECT FROM rotations WHERE expires_at > now() + interval '30 seconds'")

        await until(put_off)
        told = await entries(url, operation="rotation.begin")
        assert [entry["outcome"] for entry in told] == ["begun", "failed"]
        assert "did not answer in time" in told[1]["reason"]
        assert await fields(ready) == old
    assert (await rotated(ready))["outcome"] == "done"
