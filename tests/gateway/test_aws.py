"""The AWS engine: temporary credentials and users of IAM, against a service that checks signatures."""

from __future__ import annotations

import json
from typing import Any

import hvac
import pytest
from hvac import exceptions

from secrethub.engines.aws.role import checked_role
from secrethub.engines.aws.roles import WriteRole, _given
from secrethub.errors import InvalidRequest
from tests.gateway.aws import MOUNT, creds, ready, service, target
from tests.gateway.aws_target import EXTERNAL_ID, MANAGED, OTHER_ROLE, READ, REGION, ROLE, Target
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok
from tests.gateway.test_hvac import with_client

__all__ = ["ready", "service", "target"]  # the fixtures

USER = {
    "credential_type": "iam_user",
    "policy_arns": [MANAGED],
    "policy_document": READ,
    "iam_groups": ["readers"],
    "iam_tags": ["team=blue"],
    "user_path": "/machines/",
    "permissions_boundary_arn": MANAGED,
}
ASSUMED = {"credential_type": "assumed_role", "role_arns": [ROLE]}


async def none_left(target: Target) -> None:
    """Wait until no user is left."""

    async def none() -> bool:
        return not target.made()

    await until(none)


async def test_hvac_drives_it_from_configuration_to_revocation(leasing: Node, target: Target) -> None:
    """Vault's client configures a mount at ``aws/``, has credentials given out, and takes them back."""

    def work(client: hvac.Client) -> dict[str, Any]:
        client.sys.enable_secrets_engine("aws")
        aws = client.secrets.aws
        aws.configure_root_iam_credentials(**target.config())
        read = client.read("aws/config/root")["data"]
        assert (read["access_key"], read["region"]) == (target.access_key, REGION)
        assert target.secret_key not in str(read)
        with pytest.raises(exceptions.InvalidPath):
            aws.read_lease_config()
        aws.configure_lease("60m", "24h")
        assert aws.read_lease_config()["data"] == {"lease": "1h0m0s", "lease_max": "24h0m0s"}
        aws.create_or_update_role("deploy", "assumed_role", role_arns=[ROLE], max_sts_ttl="2h")
        aws.create_or_update_role("user", "iam_user", policy_arns=[MANAGED], policy_document=READ)
        aws.create_or_update_role("federated", "federation_token", policy_document=READ)
        assert aws.list_roles()["data"]["keys"] == ["deploy", "federated", "user"]
        role = aws.read_role("user")["data"]
        assert (role["credential_type"], role["policy_arns"]) == ("iam_user", [MANAGED])
        assert json.loads(role["policy_document"]) == READ
        aws.delete_role("federated")
        with pytest.raises(exceptions.InvalidPath):
            aws.read_role("federated")
        made = aws.generate_credentials("deploy", endpoint="sts", ttl="30m", role_session_name="ci job/7")
        assert (made["renewable"], made["lease_duration"]) == (False, 1800)
        assert made["data"]["arn"].endswith(":assumed-role/deploy/ci_job_7")
        assert target.opens(made["data"])
        long = aws.generate_credentials("deploy", ttl="11h")
        assert long["lease_duration"] == 7200
        user: dict[str, Any] = aws.generate_credentials("user")
        assert (user["renewable"], user["lease_duration"]) == (True, 3600)
        assert target.opens(user["data"])
        assert client.sys.renew_lease(user["lease_id"], 7200)["lease_duration"] == 7200
        client.sys.revoke_lease(user["lease_id"])
        client.sys.revoke_lease(made["lease_id"])
        rotated = aws.rotate_root_iam_credentials()["data"]["access_key"]
        assert rotated != target.access_key
        return user

    user = await with_client(leasing, work)
    await none_left(target)
    assert not target.opens(user["data"])


async def test_a_user_is_made_whole_and_removed_whole(ready: Node, target: Target) -> None:
    """A user of IAM has what its role says and our tags; nothing is left of it when its token ends."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", USER)
    token = await ready.token("app", native(f"{MOUNT}/creds/**"))
    made = await creds(ready, "app", token)
    (name,) = target.made()
    marker = made["lease_id"].rpartition("/")[2]
    assert name.endswith(marker)
    assert len(name) <= 64
    iam = target.iam()
    user = iam.get_user(UserName=name)["User"]
    assert user["Path"] == "/machines/"
    tags = {tag["Key"]: tag["Value"] for tag in user["Tags"]}
    cluster = (await ready.call("GET", "sys/health")).json()["cluster_id"]
    assert tags == {"team": "blue", "secrethub-cluster": cluster, "secrethub-lease": marker}
    assert [group["GroupName"] for group in iam.list_groups_for_user(UserName=name)["Groups"]] == ["readers"]
    attached = iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [MANAGED]
    assert iam.get_user_policy(UserName=name, PolicyName="secrethub")["PolicyDocument"] == READ
    assert (made["data"]["security_token"], made["data"]["session_token"]) == (None, None)
    # Whoever uses it may have a second key by now.
    iam.create_access_key(UserName=name)
    await ok(ready, "POST", "auth/token/revoke", {"token": token})
    await none_left(target)
    assert not target.opens(made["data"])
    url = ready.settings.database_url
    rows = [dict(row) for row in await sql(url, "SELECT * FROM engine_configs")]
    told = str(rows) + str(await entries(url))
    assert target.access_key in told
    assert target.secret_key not in told
    assert made["data"]["secret_key"] not in told
    await ledger_is_good(ready)


async def test_what_a_refused_creation_has_left_is_removed(ready: Node, target: Target) -> None:
    """When AWS refuses a later step the user is taken back at once, and the answer says what was refused."""
    ready.clock.move(61)
    await ok(ready, "POST", f"{MOUNT}/roles/app", {**USER, "iam_groups": ["nobody-knows"]})
    answer = await ready.call("GET", f"{MOUNT}/creds/app")
    assert answer.status_code == 400
    assert answer.json()["errors"] == ["AWS refuses iam:add_user_to_group: NoSuchEntity"]
    await none_left(target)


async def test_a_user_that_is_gone_is_ended_but_not_one_that_is_too_new(ready: Node, target: Target) -> None:
    """IAM's "no such user" is believed of a lease that is a minute old, and until then tried again."""
    await ok(ready, "POST", f"{MOUNT}/config/lease", {"lease": "1h", "lease_max": "24h"})
    await ok(ready, "POST", f"{MOUNT}/roles/app", {"credential_type": "iam_user", "policy_document": READ})
    made = await creds(ready, "app")
    (name,) = target.made()
    iam = target.iam()
    iam.delete_access_key(UserName=name, AccessKeyId=made["data"]["access_key"])
    iam.delete_user_policy(UserName=name, PolicyName="secrethub")
    iam.delete_user(UserName=name)
    renewed = await ready.call(
        "PUT", "sys/leases/renew", json={"lease_id": made["lease_id"], "increment": "2h"}
    )
    assert (renewed.status_code, renewed.json()["errors"]) == (400, ["the user is gone"])
    body = {"lease_id": made["lease_id"], "sync": True}
    answer = await ready.call("PUT", "sys/leases/revoke", json=body)
    assert answer.status_code != 204, answer.text
    found = await sql(ready.settings.database_url, "SELECT error FROM leases")
    assert "too new" in found[0]["error"]


async def test_a_user_that_aws_fails_at_holds_up_no_other(ready: Node, target: Target) -> None:
    """Users that are ended together have a reason each, and those that are gone are done with."""
    await ok(ready, "POST", f"{MOUNT}/config/root", target.config(max_retries=0))
    await ok(ready, "POST", f"{MOUNT}/roles/app", {"credential_type": "iam_user", "policy_document": READ})
    first = (await creds(ready, "app"))["lease_id"]
    (failing,) = target.made()
    for _ in range(3):
        await creds(ready, "app")
    path = f"sys/leases/revoke-prefix/{MOUNT}/creds"
    with target.losing_answers("delete_user", done=False, of=failing):
        for _ in range(4):
            answer = await ready.call("PUT", path, json={"sync": True})
            assert (answer.status_code, "1 of " in answer.text) == (503, True), answer.text
        assert target.made() == {failing}
        (left,) = await sql(ready.settings.database_url, "SELECT id, error FROM leases")
        assert (left["id"], bool(left["error"])) == (first, True)
    await none_left(target)


async def test_only_roles_of_the_role_are_assumed(ready: Node, target: Target) -> None:
    """Which role of AWS is assumed is asked for among those of the role, with its external id."""
    await ok(ready, "POST", f"{MOUNT}/roles/one", ASSUMED)
    both = {"role_arns": f"{ROLE},{OTHER_ROLE}", "credential_type": "assumed_role"}
    await ok(ready, "POST", f"{MOUNT}/roles/both", both)
    for asked, role in (({"role_arn": OTHER_ROLE}, "one"), ({}, "both"), ({"ttl": "5m"}, "one")):
        answer = await ready.call("GET", f"{MOUNT}/creds/{role}", params=asked)
        assert answer.status_code == 400, (asked, answer.text)
    more = {"external_id": "a-guess", "session_tags": {"team": "blue"}, "policy_document": READ}
    await ok(ready, "POST", f"{MOUNT}/roles/both", more)
    refused = await ready.call("GET", f"{MOUNT}/creds/both", params={"role_arn": OTHER_ROLE})
    assert refused.json()["errors"] == ["AWS refuses sts:assume_role: AccessDenied"]
    await ok(ready, "POST", f"{MOUNT}/roles/both", {"external_id": EXTERNAL_ID})
    made = await creds(ready, "both", role_arn=OTHER_ROLE)
    assert target.opens(made["data"])
    assert ":assumed-role/audit/v-root-both-" in made["data"]["arn"]
    assert made["data"]["ttl"] == 3600
    short = await ready.token("short", native(f"{MOUNT}/**"), ttl="10m")
    brief = await creds(ready, "one", short)
    # AWS gives none for less than a quarter of an hour.
    assert brief["lease_duration"] <= 600 < brief["data"]["ttl"] == 900
    federated = {"credential_type": "federation_token", "policy_document": READ, "default_sts_ttl": "20m"}
    await ok(ready, "POST", f"{MOUNT}/roles/fed", federated)
    token = await creds(ready, "fed")
    assert (token["lease_duration"], token["renewable"]) == (1200, False)
    assert f":federated-user/sh-{token['lease_id'].rpartition('/')[2]}" in token["data"]["arn"]


@pytest.mark.parametrize(
    "body",
    [
        {"credential_type": "assumed_role"},
        {"credential_type": "federation_token"},
        {"credential_type": "iam_user"},
        {"credential_type": "root"},
        {**USER, "role_arns": [ROLE]},
        {**USER, "default_sts_ttl": "1h"},
        {**USER, "iam_tags": {"secrethub-lease": "x"}},
        {**USER, "iam_tags": ["no-value"]},
        {**USER, "policy_document": "[1]"},
        {**USER, "policy_document": "{"},
        {**USER, "policy_arns": ["arn:aws:s3:::bucket"]},
        {**USER, "user_path": "no/slash"},
        {**ASSUMED, "iam_groups": ["g"]},
        {**ASSUMED, "role_arns": ["arn:aws:iam::123456789012:user/x"]},
        {**ASSUMED, "max_sts_ttl": "13h"},
        {**ASSUMED, "default_sts_ttl": "60s"},
        {**ASSUMED, "default_sts_ttl": "2h", "max_sts_ttl": "1h"},
    ],
    ids=str,
)
def test_roles_that_mean_nothing_or_everything_are_refused(body: dict[str, Any]) -> None:
    """A role says what its credentials may do, and nothing that its type has no use for."""
    with pytest.raises(InvalidRequest):
        checked_role(_given(WriteRole(**body)))
