"""Who SecretHub is at AWS: never read back, never taken from the surroundings, replaced through crashes."""

from __future__ import annotations

import pytest

from tests.gateway.aws import MOUNT, creds, ready, service, target
from tests.gateway.aws_target import READ, Target
from tests.gateway.behind import entries, ledger_is_good, sql
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, status
from tests.gateway.stray_searches import searched

__all__ = ["ready", "service", "target"]  # the fixtures

USER = {"credential_type": "iam_user", "policy_document": READ}


async def rotated(node: Node) -> str:
    """Replace our key and return the new one's id."""
    return str((await ok(node, "POST", f"{MOUNT}/config/rotate-root"))["access_key"])


async def test_nothing_of_the_surroundings_is_used(leasing: Node, target: Target) -> None:
    """Good credentials and another endpoint in the environment neither help nor hinder."""
    answer = await leasing.call("POST", f"{MOUNT}/config/root", json={"region": "eu-central-1"})
    assert (answer.status_code, "nothing of the server's own" in answer.text) == (400, True)
    await ok(leasing, "POST", f"{MOUNT}/roles/app", USER)
    assert "config/root is not written" in (await leasing.call("GET", f"{MOUNT}/creds/app")).text
    wrong = "x" * 40
    await ok(leasing, "POST", f"{MOUNT}/config/root", target.config(secret_key=wrong))
    answer = await leasing.call("GET", f"{MOUNT}/creds/app")
    assert answer.json()["errors"] == ["AWS refuses iam:create_user: SignatureDoesNotMatch"]
    answer = await leasing.call("POST", f"{MOUNT}/config/check")
    assert answer.status_code == 400
    assert wrong not in str(await entries(leasing.settings.database_url)) + answer.text
    await ok(leasing, "POST", f"{MOUNT}/config/root", target.config())
    assert (await ok(leasing, "POST", f"{MOUNT}/config/check"))["arn"].endswith(":user/secrethub")


async def test_the_secret_key_is_not_used_for_a_place_that_its_owner_did_not_choose(
    ready: Node, target: Target
) -> None:
    """Another endpoint or key takes the secret key anew; endpoints that may not be are refused."""
    for changed in ({"sts_endpoint": "https://sts.example.test"}, {"access_key": "A" * 20}):
        answer = await ready.call("POST", f"{MOUNT}/config/root", json=changed)
        assert answer.status_code in {400, 503}, answer.text
    for endpoint in (
        "http://169.254.169.254/",
        "https://127.0.0.2:1",
        "https://user@host.example",
        "https://127.0.0.1/path",
        "ftp://127.0.0.1",
    ):
        answer = await ready.call("POST", f"{MOUNT}/config/root", json=target.config(iam_endpoint=endpoint))
        assert answer.status_code == 400, (endpoint, answer.text)
    for wrong in ({"max_retries": 9}, {"region": "../x"}, {"username_template": "{{.Env}}"}):
        assert await status(ready, "POST", f"{MOUNT}/config/root", wrong) == 400, wrong
    await ok(ready, "POST", f"{MOUNT}/config/root", {"region": "eu-west-1"})
    found = await ok(ready, "GET", f"{MOUNT}/config/root")
    assert (found["region"], found["access_key"]) == ("eu-west-1", target.access_key)
    assert set(found) == {
        *("access_key", "region", "iam_endpoint", "sts_endpoint", "max_retries", "username_template"),
        *("stray_check", "remove_strays", "retiring_access_key"),
    }


async def test_who_gives_another_key_is_told_of_leases(ready: Node, target: Target) -> None:
    """Another key or endpoint with leases is taken with a warning; without them, or the same, with none."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", USER)
    made = await creds(ready, "app")
    other = target.iam().create_access_key(UserName="secrethub")["AccessKey"]
    new = target.config(access_key=other["AccessKeyId"], secret_key=other["SecretAccessKey"])
    elsewhere = target.config(iam_endpoint="")
    for given, warned in ((new, True), (new, False), ({"region": "us-east-1"}, False), (elsewhere, True)):
        told = await ready.call("POST", f"{MOUNT}/config/root", json=given)
        assert told.status_code == (200 if warned else 204), told.text
        assert ("stay in the old one" in told.text) == warned
    await ok(ready, "POST", f"{MOUNT}/config/root", new)
    await ok(ready, "PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
    assert (await ready.call("POST", f"{MOUNT}/config/root", json=target.config())).status_code == 204


async def test_our_key_is_replaced_and_leases_go_on(ready: Node, target: Target) -> None:
    """After a rotation the old key is gone, and what it made is ended with the new one."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", USER)
    made = await creds(ready, "app")
    old = target.iam()
    before = target.access_key
    fresh = await rotated(ready)
    assert fresh != before
    with pytest.raises(old.exceptions.ClientError, match="InvalidClientTokenId"):
        old.get_user()
    assert (await ok(ready, "GET", f"{MOUNT}/config/root"))["access_key"] == fresh
    revoked = await ready.call("PUT", "sys/leases/revoke", json={"lease_id": made["lease_id"], "sync": True})
    assert revoked.status_code == 204, revoked.text
    assert target.users() == {"secrethub"}
    assert target.keys() == {fresh}
    await ledger_is_good(ready, state=True)


async def test_a_turn_that_was_interrupted_locks_nobody_out(ready: Node, target: Target) -> None:
    """A new key whose answer was lost is removed by the next turn, and the old one is good until then."""
    await ok(ready, "POST", f"{MOUNT}/config/root", {"max_retries": 0})
    with target.losing_answers("create_access_key"):
        assert await status(ready, "POST", f"{MOUNT}/config/rotate-root") == 503
    left = target.keys()
    assert len(left) == 2
    await ok(ready, "POST", f"{MOUNT}/config/check")
    # Until it must have ended nobody takes its key for one that nobody knows.
    again = await ready.call("POST", f"{MOUNT}/config/rotate-root")
    written = await ready.call("POST", f"{MOUNT}/config/root", json={"region": "eu-west-1"})
    for answer in (again, written):
        assert answer.json()["errors"] == ["the key is being replaced"]
    ready.clock.move(130)
    fresh = await rotated(ready)
    assert target.keys() == {fresh}
    assert fresh not in left


async def test_an_old_key_that_stays_is_told_of(ready: Node, target: Target) -> None:
    """When the old key cannot be removed the new one is kept, and the old one goes with the next turn."""
    await ok(ready, "POST", f"{MOUNT}/config/root", {"max_retries": 0})
    with target.losing_answers("delete_access_key", done=False):
        answer = (await ready.call("POST", f"{MOUNT}/config/rotate-root")).json()
    assert "still there" in answer["warnings"][0]
    found = await ok(ready, "GET", f"{MOUNT}/config/root")
    assert found["retiring_access_key"] == target.access_key
    assert found["access_key"] == answer["data"]["access_key"]
    assert target.keys() == {found["access_key"], target.access_key}
    fresh = await rotated(ready)
    assert target.keys() == {fresh}
    assert (await ok(ready, "GET", f"{MOUNT}/config/root"))["retiring_access_key"] == ""


async def test_a_second_key_of_somebody_else_is_left_alone(ready: Node, target: Target) -> None:
    """A key that no turn of ours has made is not removed, and leaves no place for one."""
    target.iam().create_access_key(UserName="secrethub")
    answer = await ready.call("POST", f"{MOUNT}/config/rotate-root")
    assert (answer.status_code, "second access key" in answer.text) == (400, True)
    assert len(target.keys()) == 2


async def test_strays_are_told_of_and_removed(ready: Node, target: Target) -> None:
    """Users of this cluster without a lease are removed; those with one, of others, or like ours, stay."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", USER)
    stray = await creds(ready, "app")
    (name,) = target.made()
    await creds(ready, "app")
    alike = name[:-24] + "A" * 24
    for other in (alike, "v-x-y-000000000000-" + "B" * 24, "ada"):
        target.iam().create_user(UserName=other)
    everybody = target.made()
    # As after a database was put back.
    await sql(ready.settings.database_url, "DELETE FROM leases WHERE id = $1", stray["lease_id"])
    assert (await ok(ready, "GET", f"{MOUNT}/strays"))["strays"] == sorted([alike, name])
    token = await ready.token("app", native(f"{MOUNT}/**", capabilities=("update",)))
    assert await status(ready, "POST", f"{MOUNT}/strays", token=token) == 403
    assert target.made() == everybody
    removed = await ok(ready, "POST", f"{MOUNT}/strays")
    assert (removed["removed"], list(removed["failed"])) == ([name], [alike])
    assert target.made() == everybody - {name}


async def test_strays_are_searched_for_by_themselves(ready: Node, target: Target) -> None:
    """A search finds them and leaves them; told to remove them, it removes those whose tags are ours."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", USER)
    stray = await creds(ready, "app")
    (name,) = target.made()
    await creds(ready, "app")
    alike = name[:-24] + "A" * 24
    target.iam().create_user(UserName=alike)
    everybody = target.made()
    await sql(ready.settings.database_url, "DELETE FROM leases WHERE id = $1", stray["lease_id"])
    assert await searched(ready) == (2, sorted([alike, name]))
    assert target.made() == everybody
    await ok(ready, "POST", f"{MOUNT}/config/root", target.config(remove_strays=True, stray_check="1h"))
    found = await ok(ready, "GET", f"{MOUNT}/config/root")
    assert (found["stray_check"], found["remove_strays"]) == (3600, True)
    assert await searched(ready) == (1, [alike])
    assert target.made() == everybody - {name}


async def test_removing_the_mount_removes_users_and_configuration(ready: Node, target: Target) -> None:
    """A mount's users end while its key is still known; then nothing of it is left."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", USER)
    await creds(ready, "app")
    await ok(ready, "DELETE", f"sys/mounts/{MOUNT}")
    assert target.made() == set()
    for table in ("engine_configs", "engine_roles"):
        assert not await sql(ready.settings.database_url, f"SELECT key FROM {table}")
