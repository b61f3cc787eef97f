"""AppRole: SecretIDs are looked up, destroyed, chosen, wrapped, counted across processes, tidied away."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.approle_steps import FAILED, login, role, secret_id
from tests.gateway.authority_core import MovingClock
from tests.gateway.behind import sql
from tests.gateway.conftest import ALONE, SHARING, Node, emptied
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture

pytestmark = SHARING

ROLE = "auth/approle/role/app"
NETWORKS = "10.0.0.0/8,192.0.2.7,2001:db8::/32"


@pytest_asyncio.fixture(loop_scope="module")
async def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which finds nothing in its AppRole mount."""
    return await emptied(shared_node, "approle")


@pytest.fixture
def clock(own: Node) -> MovingClock:
    """The node's clock, which a test may move."""
    moving = MovingClock()
    own.process.core.clock = moving
    return moving


async def lookup(node: Node, **named: str) -> Any:
    path = "secret-id-accessor" if "secret_id_accessor" in named else "secret-id"
    return await node.call("POST", f"{ROLE}/{path}/lookup", json=named)


@pytest.mark.parametrize(
    ("name", "setting"),
    [("cidr_list", "secret_id_bound_cidrs"), ("token_bound_cidrs", "token_bound_cidrs")],
)
async def test_networks_lie_in_those_of_the_role(node: Node, name: str, setting: str) -> None:
    """Each network of a SecretID lies in one of its role's, IPv4 or IPv6; a wider one is refused."""
    await role(node, **{setting: NETWORKS})
    for path in ("secret-id", "custom-secret-id"):
        chosen = {"secret_id": "a-chosen-secret-id"} if path == "custom-secret-id" else {}
        for wrong in (
            "10.0.0.0/7",
            "0.0.0.0/0",
            "10.1.0.0/16,11.0.0.0/8",
            "192.0.2.0/24",
            "2001::/16",
            "::/0",
        ):
            refused = await node.call("POST", f"{ROLE}/{path}", json={**chosen, name: wrong})
            assert refused.status_code == 400, wrong
            assert refused.json()["errors"] == [f"{name} goes beyond the role's {setting}"]
        right = {**chosen, name: ["10.1.2.3/16", "192.0.2.7", "::ffff:10.0.0.1", "2001:db8:1::/48"]}
        assert (await node.call("POST", f"{ROLE}/{path}", json=right)).status_code == 200
    await node.call("DELETE", f"{ROLE}/{setting.replace('_', '-')}")
    free = await node.call("POST", f"{ROLE}/secret-id", json={name: "0.0.0.0/0,::/0"})
    assert free.status_code == 200


async def test_lookup(node: Node) -> None:
    """By itself and by its accessor a SecretID tells the same, with the logins that are left."""
    role_id = await role(node)
    made = await secret_id(
        node,
        num_uses=3,
        ttl="1h",
        metadata='{"host": "h1"}',
        cidr_list="127.0.0.0/8",
        token_bound_cidrs="127.0.0.0/16",
    )
    await login(node, role_id, made["secret_id"])
    by_itself = await lookup(node, secret_id=made["secret_id"])
    by_accessor = await lookup(node, secret_id_accessor=made["secret_id_accessor"])
    assert by_itself.json()["data"] == by_accessor.json()["data"]
    told = by_itself.json()["data"]
    assert told["expiration_time"] > told["last_updated_time"] >= told["creation_time"]
    for name in ("creation_time", "expiration_time", "last_updated_time"):
        told.pop(name)
    assert told == {
        "cidr_list": ["127.0.0.0/8"],
        "metadata": {"host": "h1"},
        "secret_id_accessor": made["secret_id_accessor"],
        "secret_id_num_uses": 2,
        "secret_id_ttl": 3600,
        "token_bound_cidrs": ["127.0.0.0/16"],
    }
    endless = await lookup(node, secret_id=(await secret_id(node))["secret_id"])
    assert endless.json()["data"]["expiration_time"] == "0001-01-01T00:00:00Z"


@ALONE
async def test_a_list_in_pages(own: Node, clock: MovingClock) -> None:
    """Pages tell the accessors of the role that are good, in order, each once."""
    await role(own)
    await role(own, "other")
    made = [(await secret_id(own))["secret_id_accessor"] for _ in range(5)]
    await secret_id(own, "other")
    for _ in range(5):
        await secret_id(own, ttl="1m")
    clock.ahead += timedelta(minutes=1)
    assert (await own.call("LIST", f"{ROLE}/secret-id")).json()["data"]["keys"] == sorted(made)
    told: list[str] = []
    while True:
        query = {"list": "true", "limit": "2", "after": told[-1] if told else ""}
        answer = await own.call("GET", f"{ROLE}/secret-id", params=query)
        if answer.status_code == 404:
            break
        keys = answer.json()["data"]["keys"]
        assert len(keys) == min(2, 5 - len(told))
        told += keys
    assert told == sorted(made)
    refused = await own.call("GET", f"{ROLE}/secret-id", params={"list": "true", "limit": "two"})
    assert refused.status_code == 400


@ALONE
async def test_what_is_not_there(own: Node, clock: MovingClock) -> None:
    """Unknown and expired ones answer as in Vault, and one role tells nothing of another's."""
    await role(own)
    await role(own, "other")
    foreign = await secret_id(own, "other")
    expired = await secret_id(own, ttl="1m")
    clock.ahead += timedelta(minutes=1)
    for one in (foreign, expired, {"secret_id": "unknown-one", "secret_id_accessor": "unknown-one"}):
        assert (await lookup(own, secret_id=one["secret_id"])).status_code == 204
        found = await lookup(own, secret_id_accessor=one["secret_id_accessor"])
        assert found.status_code == 404
        for path in ("secret-id", "secret-id-accessor"):
            name = path.replace("-", "_")
            gone = await own.call("POST", f"{ROLE}/{path}/destroy", json={name: one[name]})
            assert gone.status_code == (204 if path == "secret-id" else 404)
            assert (await own.call("POST", f"{ROLE}/{path}/destroy", json={})).status_code == 400
    kept = await own.call(
        "POST", "auth/approle/role/other/secret-id/lookup", json={"secret_id": foreign["secret_id"]}
    )
    assert kept.status_code == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("path", ["secret-id", "secret-id-accessor"])
@ALONE
async def test_destroyed_is_destroyed_everywhere(own: Node, second: Second, path: str, method: str) -> None:
    """Once its destruction is answered no process lets a SecretID in any more; others go on."""
    role_id = await role(own)
    made, other = await secret_id(own), await secret_id(own)
    body = {"role_id": role_id, "secret_id": made["secret_id"]}
    assert (await second.call("POST", "auth/approle/login", "", json=body)).status_code == 200
    name = path.replace("-", "_")
    gone = await own.call(method, f"{ROLE}/{path}/destroy", json={name: made[name]})
    assert gone.status_code == 204
    assert (await second.call("POST", "auth/approle/login", "", json=body)).json()["errors"] == FAILED
    body["secret_id"] = other["secret_id"]
    assert (await second.call("POST", "auth/approle/login", "", json=body)).status_code == 200


@ALONE
async def test_uses_are_counted_once_for_both_processes(own: Node, second: Second) -> None:
    """However logins are spread over two processes, as many get in as there were uses."""
    role_id = await role(own)
    for uses in (1, 5):
        made = await secret_id(own, num_uses=uses)
        body = {"role_id": role_id, "secret_id": made["secret_id"]}
        answers = await asyncio.gather(
            *(
                process.call("POST", "auth/approle/login", "", json=body)
                for process in (own, second)
                for _ in range(10)
            )
        )
        codes = [answer.status_code for answer in answers]
        assert codes.count(200) == uses
        assert set(codes) == {200, 400}
    assert await sql(own.settings.database_url, "SELECT 1 FROM secret_ids") == []


async def test_a_chosen_secret_id(node: Node) -> None:
    """A SecretID of one's own choice works as any other, belongs to its role, and is taken once."""
    role_id, other_id = await role(node), await role(node, "other")
    for name in ("app", "other"):
        chosen = await node.call(
            "POST",
            f"auth/approle/role/{name}/custom-secret-id",
            json={"secret_id": "chosen by me", "num_uses": 1},
        )
        assert chosen.json()["data"]["secret_id"] == "chosen by me"
    again = await node.call("POST", f"{ROLE}/custom-secret-id", json={"secret_id": "chosen by me"})
    assert again.status_code == 400
    for one in (role_id, other_id):
        assert (await login(node, one, "chosen by me")).status_code == 200
        assert (await login(node, one, "chosen by me")).json()["errors"] == FAILED
    for wrong in ("", "short", "a" * 257, "with\nline end", "nul\u0000 nul nul"):
        refused = await node.call("POST", f"{ROLE}/custom-secret-id", json={"secret_id": wrong})
        assert refused.status_code == 400


async def test_a_wrapped_secret_id_for_one_login(node: Node) -> None:
    """A SecretID travels wrapped: it is opened once, says where it was made, and lets in once."""
    role_id = await role(node)
    made = await node.call(
        "POST", f"{ROLE}/secret-id", json={"num_uses": 1}, headers={"X-Vault-Wrap-TTL": "60s"}
    )
    assert made.json()["data"] is None
    info = made.json()["wrap_info"]
    assert info["creation_path"] == f"{ROLE}/secret-id"
    opened = await node.call("POST", "sys/wrapping/unwrap", info["token"])
    secret = opened.json()["data"]["secret_id"]
    assert (await node.call("POST", "sys/wrapping/unwrap", info["token"])).status_code == 403
    assert (await login(node, role_id, secret)).status_code == 200
    assert (await login(node, role_id, secret)).json()["errors"] == FAILED


@ALONE
async def test_tidy(own: Node, clock: MovingClock) -> None:
    """Expired SecretIDs are removed, those that are good stay."""
    await role(own)
    await secret_id(own, ttl="1s")
    kept = await secret_id(own)
    url = own.settings.database_url
    assert len(await sql(url, "SELECT 1 FROM secret_ids")) == 2
    clock.ahead -= timedelta(hours=1)
    await secret_id(own, ttl="1s")
    answer = await own.call("POST", "auth/approle/tidy/secret-id")
    assert answer.status_code == 202
    left = await sql(
        url, "SELECT body->>'accessor' AS accessor FROM secret_ids ORDER BY expires_at NULLS LAST"
    )
    assert left[-1]["accessor"] == kept["secret_id_accessor"]
    assert len(left) == 2


async def test_neither_destroyed_nor_looked_up_without_the_right(node: Node) -> None:
    """The right to make SecretIDs is no right to look at or destroy others'."""
    await role(node)
    made = await secret_id(node)
    token = await node.token("maker", {"path": {f"{ROLE}/secret-id": {"capabilities": ["update"]}}})
    assert (await node.call("POST", f"{ROLE}/secret-id", token, json={})).status_code == 200
    body = {"secret_id_accessor": made["secret_id_accessor"], "secret_id": made["secret_id"]}
    for path in ("secret-id", "secret-id-accessor"):
        for action in ("lookup", "destroy"):
            answer = await node.call("POST", f"{ROLE}/{path}/{action}", token, json=body)
            assert answer.status_code == 403
