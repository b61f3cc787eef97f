"""Token roles: what tokens made by way of them may be, and must be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.authority_core import MovingClock
from tests.gateway.conftest import ALONE, SHARING, Node, native

pytestmark = SHARING


@pytest_asyncio.fixture(loop_scope="module")
async def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which finds no roles."""
    listed = await shared_node.call("LIST", "auth/token/roles")
    for name in listed.json()["data"]["keys"] if listed.is_success else ():
        await shared_node.call("DELETE", f"auth/token/roles/{name}")
    return shared_node


@pytest.fixture
def clock(own: Node) -> MovingClock:
    """The node's clock, which a test may move."""
    moving = MovingClock()
    own.process.core.clock = moving
    return moving


async def role(node: Node, name: str = "r", **body: Any) -> None:
    written = await node.call("POST", f"auth/token/roles/{name}", json=body)
    assert written.status_code == 204, written.text


async def make(node: Node, token: str | None = None, name: str = "r", **body: Any) -> Any:
    return await node.call("POST", f"auth/token/create/{name}", token, json=body)


async def made(node: Node, token: str | None = None, name: str = "r", **body: Any) -> dict[str, Any]:
    answer = await make(node, token, name, **body)
    assert answer.status_code == 200, answer.text
    auth: dict[str, Any] = answer.json()["auth"]
    return auth


async def lookup(node: Node, token: str) -> dict[str, Any]:
    data: dict[str, Any] = (await node.call("GET", "auth/token/lookup-self", token)).json()["data"]
    return data


async def test_write_read_list_delete(node: Node) -> None:
    """A role is kept as it was written; what is not given later stays; both names of a field are answered."""
    assert (await node.call("LIST", "auth/token/roles")).status_code == 404
    assert (await node.call("GET", "auth/token/roles/r")).status_code == 404
    await role(
        node,
        allowed_policies="a,B",
        disallowed_policies=["c"],
        allowed_policies_glob=["x-*"],
        orphan=True,
        token_period="1h",
        renewable="false",
        path_suffix="team",
        token_bound_cidrs="10.0.0.0/8,::1",
        token_num_uses="3",
    )
    seen = (await node.call("GET", "auth/token/roles/r")).json()["data"]
    assert seen == {
        "allowed_entity_aliases": [],
        "allowed_policies": ["a", "b"],
        "allowed_policies_glob": ["x-*"],
        "disallowed_policies": ["c"],
        "disallowed_policies_glob": [],
        "explicit_max_ttl": 0,
        "name": "r",
        "orphan": True,
        "path_suffix": "team",
        "period": 3600,
        "renewable": False,
        "token_bound_cidrs": ["10.0.0.0/8", "::1/128"],
        "token_explicit_max_ttl": 0,
        "token_no_default_policy": False,
        "token_num_uses": 3,
        "token_period": 3600,
        "token_type": "default-service",
    }
    await role(node, period=0, explicit_max_ttl="2h", token_bound_cidrs=[])
    changed = (await node.call("GET", "auth/token/roles/r")).json()["data"]
    assert changed == seen | {
        "period": 0,
        "token_period": 0,
        "explicit_max_ttl": 7200,
        "token_explicit_max_ttl": 7200,
        "token_bound_cidrs": [],
    }
    await role(node, "other")
    assert (await node.call("LIST", "auth/token/roles")).json()["data"]["keys"] == ["other", "r"]
    for _ in range(2):
        assert (await node.call("DELETE", "auth/token/roles/r")).status_code == 204
    assert (await node.call("LIST", "auth/token/roles")).json()["data"]["keys"] == ["other"]
    assert (await make(node)).status_code == 400


REFUSED: list[dict[str, Any]] = [
    {"token_type": "batch", "token_num_uses": 1},
    {"token_type": "batch", "token_period": "1h"},
    {"token_type": "batch", "token_explicit_max_ttl": "1h"},
    {"token_type": "other"},
    {"token_num_uses": -1},
    {"token_period": "x"},
    {"token_period": "1h", "period": "2h"},
    {"token_bound_cidrs": ["10.0.0.0/99"]},
    {"token_bound_cidrs": ["10.0.0.0/8"], "bound_cidrs": []},
    {"path_suffix": "a/../b"},
    {"path_suffix": "a b"},
    {"allowed_policies": ["a/b"]},
    {"disallowed_policies_glob": ["a/*"]},
    {"token_strictly_bind_ip": True},
    {"allowed_entity_aliases": ["x"]},
    {"orphan": "maybe"},
]


async def test_what_cannot_be_a_role(node: Node) -> None:
    """What contradicts itself, or would narrow tokens and is not enforced, is refused by name."""
    for body in REFUSED:
        refused = await node.call("POST", "auth/token/roles/r", json=body)
        assert refused.status_code == 400, body
        assert refused.json()["errors"][0] not in {"", "invalid_request"}
    for name in ("a b", "-" * 200, "%C3%A4"):
        assert (await node.call("POST", f"auth/token/roles/{name}", json={})).status_code == 400
    assert (await node.call("GET", "auth/token/roles/r")).status_code == 404


async def test_names_of_nothing(node: Node) -> None:
    """As in Vault, empty names in lists of policies are none; a list of nothing else does not allow all."""
    await role(node, allowed_policies=["A", "", " b "], disallowed_policies=" c ,,")
    kept = (await node.call("GET", "auth/token/roles/r")).json()["data"]
    assert (kept["allowed_policies"], kept["disallowed_policies"]) == (["a", "b"], ["c"])
    for asked in (["A", "", " b "], " a ,, B"):
        for path in ("auth/token/create", "auth/token/create/r"):
            answer = await node.call("POST", path, json={"policies": asked, "no_default_policy": True})
            assert answer.json()["auth"]["policies"] == ["a", "b"], path
    for nothing in ([""], [" ", ""]):
        refused = await node.call("POST", "auth/token/roles/r", json={"allowed_policies": nothing})
        assert refused.status_code == 400
        assert (await node.call("GET", "auth/token/roles/r")).json()["data"] == kept
        for path in ("auth/token/create", "auth/token/create/r"):
            none = await node.call("POST", path, json={"policies": nothing})
            assert none.json()["auth"]["policies"] == ["default"], path
    await role(node, allowed_policies=[])
    assert (await node.call("GET", "auth/token/roles/r")).json()["data"]["allowed_policies"] == []


async def test_allowed_policies(node: Node) -> None:
    """A role's lists decide instead of the caller's policies; who wishes nothing gets all of them."""
    caller = await node.token("caller", native("auth/token/create/*", capabilities=("update",)))
    await role(node, allowed_policies=["a", "b"], allowed_policies_glob=["team-*"])
    assert (await made(node, caller))["policies"] == ["a", "b", "default"]
    assert (await made(node, caller, policies=["a"], no_default_policy=True))["policies"] == ["a"]
    assert (await made(node, caller, policies=["team-x"]))["policies"] == ["default", "team-x"]
    assert (await made(node, caller, policies=["a", "default"]))["policies"] == ["a", "default"]
    for wanted in (["c"], ["a", "caller"], ["root"], ["xteam-"]):
        assert (await make(node, caller, policies=wanted)).status_code == 400, wanted
    await role(node, token_no_default_policy=True)
    assert (await made(node, caller))["policies"] == ["a", "b"]
    assert (await make(node, caller, policies=["a", "default"])).status_code == 400
    await role(node, "root", allowed_policies=["root"])
    assert (await make(node, caller, "root")).status_code == 400
    assert (await made(node, None, "root"))["policies"] == ["root"]


async def test_disallowed_policies(node: Node) -> None:
    """What a role disallows no token of it has, default and the caller's own included."""
    caller = await node.token("caller", native("auth/token/create/*", capabilities=("update",)))
    await role(node, disallowed_policies=["secret", "default"], disallowed_policies_glob=["prod-*"])
    assert (await made(node, caller, policies=["anything"]))["policies"] == ["anything"]
    for wanted in (["secret"], ["prod-db"], ["a", "default"], []):
        # The caller's own policies have `default` among them.
        assert (await make(node, caller, policies=wanted)).status_code == 400, wanted
    await role(node, "caller", disallowed_policies=["caller"])
    assert (await make(node, caller, "caller")).status_code == 400


async def test_a_role_without_lists(node: Node) -> None:
    """A role that names no policies leaves the rule about the parent's as it is."""
    caller = await node.token("caller", native("auth/token/create/*", capabilities=("update",)))
    await role(node)
    assert (await made(node, caller))["policies"] == ["caller", "default"]
    assert (await make(node, caller, policies=["other"])).status_code == 400


async def test_what_a_role_prescribes(node: Node) -> None:
    """Orphans, the path, the number of uses, networks, the maximum and renewal are as the role says."""
    await role(
        node,
        orphan=True,
        path_suffix="ci",
        token_num_uses=5,
        token_bound_cidrs=["127.0.0.0/8"],
        token_explicit_max_ttl="30m",
        renewable=False,
    )
    auth = await made(node, policies=["default"], ttl="2h", num_uses=9)
    assert (auth["orphan"], auth["num_uses"], auth["renewable"]) == (True, 5, False)
    assert auth["lease_duration"] == 1800
    seen = await lookup(node, auth["client_token"])
    assert seen["path"] == "auth/token/create/r/ci"
    assert seen["role"] == "r"
    assert seen["num_uses"] == 4
    assert seen["bound_cidrs"] == ["127.0.0.0/8"]
    assert (await made(node, policies=["default"], num_uses=2))["num_uses"] == 2
    assert (await node.call("POST", "auth/token/renew-self", auth["client_token"])).status_code == 400


async def test_types(node: Node) -> None:
    """A role makes one type, or prefers one; what no batch token has is refused."""
    for kind, asked, got in (
        ("service", "", "service"),
        ("batch", "", "batch"),
        ("default-batch", "", "batch"),
        ("default-batch", "service", "service"),
        ("default-service", "batch", "batch"),
        ("default-service", "default", "service"),
    ):
        await role(node, token_type=kind)
        assert (await made(node, policies=["a"], type=asked))["token_type"] == got
    for kind, asked in (("service", "batch"), ("batch", "service")):
        await role(node, token_type=kind)
        assert (await make(node, policies=["a"], type=asked)).status_code == 400
    await role(node, token_type="default-service", token_num_uses=3)
    assert (await make(node, policies=["a"], type="batch")).status_code == 400


@ALONE
async def test_a_periodic_role(own: Node, clock: MovingClock) -> None:
    """Its tokens live as long as they are renewed in time; the role's period now counts at each renewal."""
    await role(own, token_period="1h")
    token = (await made(own, policies=["default"], ttl="100h"))["client_token"]
    assert (await lookup(own, token))["period"] == 3600
    for _ in range(20):
        clock.ahead += timedelta(minutes=59)
        renewed = await own.call("POST", "auth/token/renew-self", token, json={"increment": "90h"})
        assert renewed.json()["auth"]["lease_duration"] == 3600
    await role(own, token_period="10m")
    renewed = await own.call("POST", "auth/token/renew-self", token)
    assert renewed.json()["auth"]["lease_duration"] == 600
    await own.call("DELETE", "auth/token/roles/r")
    refused = await own.call("POST", "auth/token/renew-self", token)
    assert refused.json()["errors"] == ["original token role r could not be found, not renewing"]
    clock.ahead += timedelta(minutes=10)
    assert (await own.call("GET", "auth/token/lookup-self", token)).status_code == 403


@ALONE
async def test_a_maximum_that_a_role_was_given_later(own: Node, clock: MovingClock) -> None:
    """No renewal goes beyond what the role says now, as in Vault, nor beyond what the token was given."""
    await role(own)
    await role(own, "periodic", token_period="1h")
    plain = (await made(own, policies=["default"], ttl="1h", explicit_max_ttl="3h"))["client_token"]
    periodic = (await made(own, None, "periodic", policies=["default"]))["client_token"]
    for name in ("r", "periodic"):
        await role(own, name, token_explicit_max_ttl="90m")
    clock.ahead += timedelta(minutes=50)
    for token in (plain, periodic):
        renewed = await own.call("POST", "auth/token/renew-self", token, json={"increment": "1h"})
        assert 2395 < renewed.json()["auth"]["lease_duration"] <= 2400
    await role(own, token_explicit_max_ttl="30m")
    refused = await own.call("POST", "auth/token/renew-self", plain)
    assert refused.json()["errors"] == ["past the max TTL, cannot renew"]
    for name in ("r", "periodic"):
        await role(own, name, token_explicit_max_ttl="20h")
    renewed = await own.call("POST", "auth/token/renew-self", plain, json={"increment": "9h"})
    assert renewed.json()["auth"]["lease_duration"] <= 130 * 60
    renewed = await own.call("POST", "auth/token/renew-self", periodic)
    assert renewed.json()["auth"]["lease_duration"] == 3600


@ALONE
async def test_periodic_tokens(own: Node, clock: MovingClock) -> None:
    """A period outlives the system's maximum, and its own maximum ends it all the same."""
    period = {"policies": ["default"], "period": "700h"}
    answer = await own.call("POST", "auth/token/create", json=period)
    token = answer.json()["auth"]["client_token"]
    assert answer.json()["auth"]["lease_duration"] == 700 * 3600
    capped = await own.call("POST", "auth/token/create", json=period | {"explicit_max_ttl": "1000h"})
    ends = capped.json()["auth"]["client_token"]
    clock.ahead += timedelta(hours=600)
    for one, hours in ((token, 700), (ends, 400)):
        renewed = (await own.call("POST", "auth/token/renew-self", one)).json()["auth"]
        assert hours * 3600 - 5 <= renewed["lease_duration"] <= hours * 3600
    clock.ahead += timedelta(hours=600)
    assert (await own.call("POST", "auth/token/renew-self", token)).status_code == 200
    assert (await own.call("GET", "auth/token/lookup-self", ends)).status_code == 403
    accessor = (await lookup(own, token))["accessor"]
    assert (await own.call("POST", "auth/token/tidy")).status_code == 202
    seen = await own.call("POST", "auth/token/lookup-accessor", json={"accessor": accessor})
    assert seen.status_code == 200
