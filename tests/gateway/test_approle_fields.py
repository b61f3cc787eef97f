"""AppRole: a role's settings one by one, what its tokens are like, and several mounts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from secrethub.engines.engine import Answer
from tests.gateway.approle_steps import FAILED, from_address, login, role, secret_id
from tests.gateway.authority_core import MovingClock
from tests.gateway.conftest import SHARING, Node
from tests.gateway.kv import ok

ROLE = "auth/approle/role/app"


@pytest.fixture
def clock(node: Node) -> MovingClock:
    """The node's clock, which a test may move."""
    moving = MovingClock()
    node.process.core.clock = moving
    return moving


@SHARING
@pytest.mark.parametrize(
    ("path", "given", "read", "erased"),
    [
        ("policies", {"policies": "b,A"}, {"policies": ["a", "b"], "token_policies": ["a", "b"]}, []),
        ("policies", {"policies": [" B ", "", "b"]}, {"policies": ["b"], "token_policies": ["b"]}, []),
        ("policies", {"token_policies": ["c"]}, {"policies": ["c"], "token_policies": ["c"]}, []),
        ("secret-id-num-uses", {"secret_id_num_uses": "7"}, {"secret_id_num_uses": 7}, 0),
        ("secret-id-ttl", {"secret_id_ttl": "1h"}, {"secret_id_ttl": 3600}, 0),
        ("token-ttl", {"token_ttl": 90}, {"token_ttl": 90}, 0),
        ("token-max-ttl", {"token_max_ttl": "2h"}, {"token_max_ttl": 7200}, 0),
        ("token-num-uses", {"token_num_uses": 3}, {"token_num_uses": 3}, 0),
        ("token-type", {"token_type": "batch"}, {"token_type": "batch"}, "default"),
        ("period", {"period": "24h"}, {"period": 86400, "token_period": 86400}, 0),
        ("period", {"token_period": 60}, {"period": 60, "token_period": 60}, 0),
        (
            "secret-id-bound-cidrs",
            {"secret_id_bound_cidrs": "10.0.0.1,2001:db8::/32"},
            {"secret_id_bound_cidrs": ["10.0.0.1/32", "2001:db8::/32"]},
            None,
        ),
        ("bound-cidr-list", {"bound_cidr_list": ["10.0.0.0/8"]}, {"bound_cidr_list": ["10.0.0.0/8"]}, None),
        (
            "token-bound-cidrs",
            {"token_bound_cidrs": ["10.0.0.0/8"]},
            {"token_bound_cidrs": ["10.0.0.0/8"]},
            [],
        ),
    ],
)
async def test_each_setting_has_a_path(
    shared_node: Node, path: str, given: dict[str, Any], read: dict[str, Any], erased: Any
) -> None:
    """A setting is written, read and brought back to a new role's under its own path, and only it."""
    await role(shared_node, token_no_default_policy=True)
    before = (await shared_node.call("GET", ROLE)).json()["data"]
    written = await shared_node.call("POST", f"{ROLE}/{path}", json=given)
    assert written.status_code == (200 if path == "policies" else 204)  # there are no such policies
    assert (await shared_node.call("GET", f"{ROLE}/{path}")).json()["data"] == read
    assert (await shared_node.call("DELETE", f"{ROLE}/{path}")).status_code == 204
    assert (await shared_node.call("GET", f"{ROLE}/{path}")).json()["data"] == dict.fromkeys(read, erased)
    assert (await shared_node.call("GET", ROLE)).json()["data"] == before
    assert (await shared_node.call("POST", f"{ROLE}/{path}", json={})).status_code == 400
    assert (await shared_node.call("POST", f"auth/approle/role/none/{path}", json=given)).status_code == 404
    assert (await shared_node.call("GET", f"auth/approle/role/none/{path}")).status_code == 404
    assert (await shared_node.call("DELETE", f"auth/approle/role/none/{path}")).status_code == 404
    assert (await shared_node.call("DELETE", ROLE)).status_code == 204


async def test_the_right_to_one_setting_is_no_right_to_another(node: Node) -> None:
    """Whoever may write one setting's path cannot change another one through its body."""
    await role(node, token_policies="narrow")
    rules = {f"{ROLE}/token-ttl": {"capabilities": ["update"]}}
    token = await node.token("ttl-only", {"path": rules})
    body = {"token_ttl": "5m", "token_policies": ["wide"], "secret_id_bound_cidrs": []}
    answer = await node.call("POST", f"{ROLE}/token-ttl", token, json=body)
    assert answer.status_code == 200
    assert "secret_id_bound_cidrs" in answer.json()["warnings"][0]
    assert (await node.call("POST", f"{ROLE}/policies", token, json=body)).status_code == 403
    kept = (await node.call("GET", ROLE)).json()["data"]
    assert (kept["token_policies"], kept["token_ttl"]) == (["narrow"], 300)


async def test_a_role_without_secret_ids(node: Node) -> None:
    """Networks can stand for the SecretID; taking them away again would let anybody in and is refused."""
    role_id = await role(node, bind_secret_id=False, secret_id_bound_cidrs="10.0.0.0/8")
    assert (await node.call("GET", f"{ROLE}/bind-secret-id")).json()["data"] == {"bind_secret_id": False}
    assert isinstance(await from_address(node, "10.1.2.3", {"role_id": role_id}), Answer)
    for address in ("11.1.2.3", None):
        assert not isinstance(await from_address(node, address, {"role_id": role_id}), Answer)
    assert (await node.call("DELETE", f"{ROLE}/secret-id-bound-cidrs")).status_code == 400
    wide = {"secret_id_bound_cidrs": ["0.0.0.0/0"]}
    assert (await node.call("POST", ROLE, json=wide)).status_code == 400
    assert (await node.call("POST", f"{ROLE}/secret-id", json={})).status_code == 400
    assert (await node.call("DELETE", f"{ROLE}/bind-secret-id")).status_code == 204
    assert not isinstance(await from_address(node, "10.1.2.3", {"role_id": role_id}), Answer)


async def test_batch_tokens(node: Node) -> None:
    """A role of batch tokens gives out tokens that are not stored and cannot be renewed."""
    role_id = await role(node, token_type="batch", token_ttl="10m", token_policies="p")
    auth = (await login(node, role_id, (await secret_id(node))["secret_id"])).json()["auth"]
    assert auth["client_token"].startswith("hvb.")
    assert (auth["token_type"], auth["renewable"], auth["accessor"]) == ("batch", False, "")
    seen = (await node.call("GET", "auth/token/lookup-self", auth["client_token"])).json()["data"]
    assert (seen["policies"], seen["type"]) == (["default", "p"], "batch")
    assert seen["meta"] == {"role_name": "app"}


async def test_periods_uses_and_networks(node: Node) -> None:
    """What a role says of its tokens is what they are."""
    role_id = await role(
        node, token_period="1h", token_num_uses=2, token_explicit_max_ttl="90m", token_bound_cidrs="127.0.0.1"
    )
    made = (await secret_id(node))["secret_id"]
    auth = (await login(node, role_id, made)).json()["auth"]
    assert (auth["lease_duration"], auth["num_uses"]) == (3600, 2)
    seen = (await node.call("GET", "auth/token/lookup-self", auth["client_token"])).json()["data"]
    assert (seen["period"], seen["explicit_max_ttl"]) == (3600, 5400)
    assert seen["bound_cidrs"] == ["127.0.0.1/32"]
    assert (await node.call("GET", "auth/token/lookup-self", auth["client_token"])).status_code == 200
    assert (await node.call("GET", "auth/token/lookup-self", auth["client_token"])).status_code == 403
    refused = await from_address(node, "127.0.0.2", {"role_id": role_id, "secret_id": made})
    assert str(refused) == FAILED[0]


async def test_only_a_tokens_own_maximum_is_told_as_explicit(node: Node, clock: MovingClock) -> None:
    """As in Vault, what role and mount allow at most bounds renewals, and is no ``explicit_max_ttl``."""
    await ok(node, "POST", "sys/auth/token/tune", {"max_lease_ttl": "2h"})
    for settings, explicit in (
        ({"token_max_ttl": "1h"}, 0),
        ({"token_explicit_max_ttl": "1h"}, 3600),
        ({"token_max_ttl": "2h", "token_explicit_max_ttl": "1h"}, 3600),
    ):
        none = {"token_max_ttl": 0, "token_explicit_max_ttl": 0}
        role_id = await role(node, token_ttl="40m", **{**none, **settings})
        auth = (await login(node, role_id, (await secret_id(node))["secret_id"])).json()["auth"]
        token, accessor = auth["client_token"], {"accessor": auth["accessor"]}
        for seen in (
            await ok(node, "GET", "auth/token/lookup-self", token=token),
            await ok(node, "POST", "auth/token/lookup", {"token": token}),
            await ok(node, "POST", "auth/token/lookup-accessor", accessor),
        ):
            assert (seen["explicit_max_ttl"], seen["creation_ttl"]) == (explicit, 2400), settings
        clock.ahead += timedelta(minutes=30)
        renewed = await node.call("POST", "auth/token/renew-self", token)
        assert 1795 < renewed.json()["auth"]["lease_duration"] <= 1800
    made = await node.call("POST", "auth/token/create", json={"policies": ["default"], "ttl": "3h"})
    auth = made.json()["auth"]
    assert auth["lease_duration"] == 7200
    seen = await ok(node, "GET", "auth/token/lookup-self", token=auth["client_token"])
    assert seen["explicit_max_ttl"] == 0


async def test_a_secret_ids_own_networks_narrow_its_tokens(node: Node) -> None:
    """Tokens are bound to what lies in the networks of role and SecretID, whichever changes later."""
    role_id = await role(node, token_bound_cidrs="127.0.0.0/8,10.0.0.0/8")
    narrow = await secret_id(node, token_bound_cidrs=["127.0.0.0/16", "10.9.0.0/16"])
    await role(node, token_bound_cidrs="127.0.0.0/12")
    auth = (await login(node, role_id, narrow["secret_id"])).json()["auth"]
    seen = (await node.call("GET", "auth/token/lookup-self", auth["client_token"])).json()["data"]
    assert seen["bound_cidrs"] == ["127.0.0.0/16"]
    await node.call("POST", f"{ROLE}/token-bound-cidrs", json={"token_bound_cidrs": ["10.0.0.0/8"]})
    assert (await login(node, role_id, narrow["secret_id"])).json()["errors"] == FAILED


async def test_renewal_asks_the_role_again(node: Node, clock: MovingClock) -> None:
    """A token is renewed as its role says now, never beyond what held at the login, and not without it."""
    role_id = await role(node, token_ttl="20m", token_max_ttl="2h")
    secret = (await secret_id(node))["secret_id"]
    token = (await login(node, role_id, secret)).json()["auth"]["client_token"]
    await role(node, token_ttl="10m", token_max_ttl="15m")
    renewed = await node.call("POST", "auth/token/renew-self", token)
    assert renewed.json()["auth"]["lease_duration"] == 600
    clock.ahead += timedelta(minutes=9)
    renewed = await node.call("POST", "auth/token/renew-self", token)
    assert 350 <= renewed.json()["auth"]["lease_duration"] <= 360
    await role(node, token_ttl="10h", token_max_ttl="20h")
    renewed = await node.call("POST", "auth/token/renew-self", token, json={"increment": "30h"})
    assert 6600 <= renewed.json()["auth"]["lease_duration"] <= 6660
    await node.call("DELETE", ROLE)
    await role(node)
    refused = await node.call("POST", "auth/token/renew-self", token)
    assert refused.status_code == 400
    assert (await node.call("GET", "auth/token/lookup-self", token)).status_code == 200


async def test_a_role_id_given_with_the_role(node: Node) -> None:
    """A role may be written with a RoleID, which is then its only one, and is nobody else's."""
    former = await role(node)
    assert await role(node, role_id="chosen-by-me") == "chosen-by-me"
    secret = (await secret_id(node))["secret_id"]
    assert (await login(node, former, secret)).json()["errors"] == FAILED
    assert (await login(node, "chosen-by-me", secret)).status_code == 200
    taken = await node.call("POST", "auth/approle/role/other", json={"role_id": "chosen-by-me"})
    assert taken.status_code == 400
    assert (await node.call("GET", "auth/approle/role/other")).status_code == 404


async def test_local_secret_ids(node: Node) -> None:
    """SecretIDs are the whole cluster's, and nobody can say otherwise."""
    await role(node)
    path = f"{ROLE}/local-secret-ids"
    assert (await node.call("GET", path)).json()["data"] == {"local_secret_ids": False}
    assert (await node.call("POST", path, json={"local_secret_ids": True})).status_code == 405
