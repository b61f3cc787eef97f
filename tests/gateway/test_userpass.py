"""userpass: who gets in, who is locked out, and what nobody can find out."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import hvac
import pytest
import pytest_asyncio
from hvac import exceptions

from secrethub.auth.lockout import DURATION, THRESHOLD
from tests.gateway.approle_steps import from_address
from tests.gateway.authority_core import MovingClock
from tests.gateway.behind import ledger_is_good, reasons, sql
from tests.gateway.conftest import ALONE, SHARING, Node, emptied
from tests.gateway.pair import second
from tests.gateway.second_process import Second
from tests.gateway.test_hvac import with_client

__all__ = ["second"]  # the fixture

pytestmark = SHARING

USERS = "auth/userpass/users"
FAILED = ["invalid username or password"]


@pytest_asyncio.fixture(loop_scope="module")
async def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which finds no users."""
    return await emptied(shared_node, "userpass")


@pytest.fixture
def clock(own: Node) -> MovingClock:
    """The node's clock, which a test may move."""
    moving = MovingClock()
    own.process.core.clock = moving
    return moving


async def user(node: Node, name: str = "ada", password: str = "canary-password", **body: Any) -> None:
    answer = await node.call("POST", f"{USERS}/{name}", json={"password": password, **body})
    assert answer.is_success, answer.text


async def login(node: Node | Second, name: str, password: str) -> Any:
    return await node.call("POST", f"auth/userpass/login/{name}", "", json={"password": password})


async def test_a_user_logs_in(node: Node) -> None:
    """A user gets a token as the settings say, whatever the case of the name at the login."""
    await user(node, token_policies="ops,dev", token_ttl="20m", ttl="20m", max_ttl="1h")
    auth = (await login(node, "Ada", "canary-password")).json()["auth"]
    assert auth["policies"] == ["default", "dev", "ops"]
    assert auth["metadata"] == {"username": "ada"}
    assert auth["lease_duration"] == 1200
    seen = (await node.call("GET", "auth/token/lookup-self", auth["client_token"])).json()["data"]
    assert (seen["display_name"], seen["path"]) == ("userpass-ada", "auth/userpass/login/Ada")
    read = (await node.call("GET", f"{USERS}/ada")).json()["data"]
    assert (read["token_policies"], read["token_max_ttl"]) == (["dev", "ops"], 3600)
    assert "canary" not in str(read)
    assert "password" not in read
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        for table in ("users", "audit_entries", "changes"):
            text = await connection.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table} t")
            assert "canary-password" not in text
    finally:
        await connection.close()


async def test_whose_policies_changed_logs_in_anew(node: Node) -> None:
    """A token is not renewed once its user's policies are others; it keeps those it was given."""
    await user(node, token_policies="ops")
    token = (await login(node, "ada", "canary-password")).json()["auth"]["client_token"]
    for policies, code in (("ops,default", 200), ("dev", 400), ("", 400), ("ops", 200)):
        await node.call("POST", f"{USERS}/ada/policies", json={"token_policies": policies})
        assert (await node.call("POST", "auth/token/renew-self", token)).status_code == code
    assert (await node.call("GET", "auth/token/lookup-self", token)).json()["data"]["policies"] == [
        "default",
        "ops",
    ]


async def test_users_are_written_read_and_deleted(node: Node) -> None:
    """Password and policies change at paths of their own; a deleted user is gone, with the right to renew."""
    assert (await node.call("POST", f"{USERS}/ada", json={"token_policies": "a"})).status_code == 400
    await user(node)
    await user(node, "bob")
    assert (await node.call("LIST", USERS)).json()["data"]["keys"] == ["ada", "bob"]
    assert (await node.call("POST", f"{USERS}/ada/policies", json={"policies": "x"})).status_code == 200
    changed = await node.call("POST", f"{USERS}/ada/password", json={"password": "another one"})
    assert changed.status_code == 204
    assert (await login(node, "ada", "canary-password")).json()["errors"] == FAILED
    auth = (await login(node, "ada", "another one")).json()["auth"]
    assert auth["policies"] == ["default", "x"]
    assert (await node.call("POST", "auth/token/renew-self", auth["client_token"])).status_code == 200
    assert (await node.call("DELETE", f"{USERS}/ada")).status_code == 204
    assert (await node.call("DELETE", f"{USERS}/ada")).status_code == 204
    assert (await login(node, "ada", "another one")).json()["errors"] == FAILED
    await user(node, password="another one")
    assert (await node.call("POST", "auth/token/renew-self", auth["client_token"])).status_code == 400
    for method, path in (("GET", "carl"), ("POST", "carl/password"), ("POST", "carl/policies")):
        body = {"password": "p", "policies": "x"}
        assert (await node.call(method, f"{USERS}/{path}", json=body)).status_code == 404


async def test_what_is_refused(node: Node) -> None:
    """Names in upper case, no password, hashes, root, and nonsense are refused by name."""
    for name in ("Ada", "a%20b", "x" * 129, "a*"):
        assert (await node.call("POST", f"{USERS}/{name}", json={"password": "p"})).status_code == 400
    for body in (
        {},
        {"password": ""},
        {"password": "x" * 1025},
        {"password": "p", "password_hash": "$2a$10$abc"},
        {"password": "p", "token_policies": "root"},
        {"password": "p", "token_ttl": "2h", "ttl": "1h"},
        {"password": "p", "token_type": "batch", "token_num_uses": 1},
    ):
        assert (await node.call("POST", f"{USERS}/ada", json=body)).status_code == 400, body
    assert (await node.call("LIST", USERS)).status_code == 404


async def test_every_failure_looks_alike(node: Node) -> None:
    """An unknown user, a wrong password and a login from elsewhere answer the same."""
    await user(node)
    await user(node, "far", token_bound_cidrs="192.0.2.0/24")
    seen = set()
    for name, password in (
        ("ada", "wrong"),
        ("nobody", "canary-password"),
        ("far", "canary-password"),
        ("ada", ""),
        ("ada", "x" * 2000),
        ("a%20b", "canary-password"),
    ):
        answer = await login(node, name, password)
        assert answer.json()["errors"] == FAILED
        seen.add((answer.status_code, answer.json()["code"], *sorted(answer.headers)))
    assert len(seen) == 1
    near = await from_address(
        node, "192.0.2.7", {"password": "canary-password"}, path="auth/userpass/login/far"
    )
    assert getattr(near, "auth", None) is not None


@pytest.mark.parametrize("name", ["ada", "nobody"])
@ALONE
async def test_lockout(own: Node, second: Second, clock: MovingClock, name: str) -> None:
    """After too many failures nobody gets in under a name, by any process, until the time has passed."""
    await user(own)
    for number in range(THRESHOLD):
        process = (own, second)[number % 2]
        assert (await login(process, name, "wrong")).json()["errors"] == FAILED
    for process in (own, second):
        assert (await login(process, name, "canary-password")).status_code == 403
    assert any(f"the name {name} is locked" in reason for reason in await reasons(own.settings.database_url))
    told = (await own.call("GET", "sys/locked-users")).json()["data"]
    assert told["total"] == 1
    (mount,) = told["by_namespace"][0]["mount_accessors"]
    assert mount["alias_identifiers"] == [name]
    accessor = mount["mount_accessor"]
    none = (await own.call("GET", "sys/locked-users?mount_accessor=other")).json()["data"]
    assert none == {"by_namespace": [], "total": 0}
    clock.ahead += timedelta(seconds=DURATION)
    expected = 200 if name == "ada" else 400
    assert (await login(own, name, "canary-password")).status_code == expected
    for _ in range(THRESHOLD):
        await login(own, name, "wrong")
    assert (await own.call("POST", f"sys/locked-users/{accessor}/unlock/{name}")).status_code == 204
    assert (await login(own, name, "canary-password")).status_code == expected
    assert (await own.call("POST", f"sys/locked-users/{accessor}/unlock/{name}")).status_code == 204
    assert (await own.call("POST", f"sys/locked-users/none/unlock/{name}")).status_code == 400
    await ledger_is_good(own)


@ALONE
async def test_lockout_is_tuned(own: Node, second: Second) -> None:
    """A mount says after how many failures it locks, and whether at all; every process goes by that."""
    await user(own)
    tune, tell = "sys/auth/userpass/tune", {"lockout_threshold": "2", "lockout_duration": "1h"}
    assert (await own.call("POST", tune, json={"user_lockout_config": tell})).status_code == 204
    told = (await own.call("GET", tune)).json()["data"]["user_lockout_config"]
    assert told == {
        "lockout_threshold": 2,
        "lockout_duration": 3600,
        "lockout_counter_reset_duration": 900,
        "lockout_disable": False,
    }
    for process in (own, second):
        assert (await login(process, "ada", "wrong")).json()["errors"] == FAILED
    for process in (own, second):
        assert (await login(process, "ada", "canary-password")).status_code == 403
    assert (await own.call("GET", "sys/locked-users")).json()["data"]["total"] == 1
    off = {"user_lockout_config": {"lockout_disable": True}}
    assert (await own.call("POST", tune, json=off)).status_code == 204
    assert (await own.call("GET", "sys/locked-users")).json()["data"]["total"] == 0
    for _ in range(4):
        assert (await login(second, "ada", "wrong")).status_code == 400
    assert (await login(second, "ada", "canary-password")).status_code == 200
    for wrong in (
        {"lockout_threshold": 0},
        {"lockout_threshold": True},
        {"lockout_threshold": "many"},
        {"lockout_duration": "0s"},
        {"lockout_duration": -1},
        {"lockout_counter_reset_duration": []},
        {"lockout_disable": "perhaps"},
        {"other": 1},
    ):
        refused = await own.call("POST", tune, json={"user_lockout_config": wrong})
        assert refused.status_code == 400, wrong
    elsewhere = await own.call("POST", "sys/auth/approle/tune", json={"user_lockout_config": tell})
    assert elsewhere.status_code == 400
    made = {"type": "userpass", "config": {"user_lockout_config": {"lockout_threshold": 9}}}
    assert (await own.call("POST", "sys/auth/people", json=made)).status_code == 204
    told = (await own.call("GET", "sys/auth/people/tune")).json()["data"]["user_lockout_config"]
    assert (told["lockout_threshold"], told["lockout_duration"]) == (9, 900)


async def test_a_right_password_forgets_the_wrong_ones(node: Node) -> None:
    """Failures in a row count; one success, and they begin anew."""
    await user(node)
    for _ in range(2):
        for _ in range(THRESHOLD - 1):
            assert (await login(node, "ada", "wrong")).status_code == 400
        assert (await login(node, "ada", "canary-password")).status_code == 200
    assert await sql(node.settings.database_url, "SELECT 1 FROM login_failures") == []


@ALONE
async def test_guessing_at_once(own: Node, second: Second) -> None:
    """Of many guesses at the same moment no more are looked at than the threshold; right ones all get in."""
    await user(own)
    answers = await asyncio.gather(
        *(login(process, "ada", "canary-password") for process in (own, second) for _ in range(4))
    )
    assert [answer.status_code for answer in answers] == [200] * 8
    answers = await asyncio.gather(
        *(login(process, "ada", f"guess-{n}") for process in (own, second) for n in range(8))
    )
    codes = [answer.status_code for answer in answers]
    assert codes.count(400) == THRESHOLD
    assert set(codes) == {400, 403}


@ALONE
async def test_a_lock_that_was_taken_away_by_hand(own: Node) -> None:
    """Who writes to the database cannot guess on: a row of failures that was removed is missed."""
    await user(own)
    for _ in range(THRESHOLD):
        await login(own, "ada", "wrong")
    await sql(own.settings.database_url, "DELETE FROM login_failures")
    assert (await login(own, "ada", "canary-password")).status_code == 500
    await sql(own.settings.database_url, 'UPDATE users SET body = body || \'{"token_policies": ["x"]}\'')
    assert (await own.call("GET", f"{USERS}/ada")).status_code == 500


async def test_hvac(node: Node) -> None:
    """The hvac client, unmodified, does all of it, at another mount too."""

    def work(client: hvac.Client) -> None:
        client.sys.enable_auth_method("userpass", path="staff")
        for mount in ("userpass", "staff"):
            userpass = client.auth.userpass
            userpass.create_or_update_user("ada", f"secret-{mount}", "dev", mount_point=mount, token_ttl="5m")
            assert userpass.list_user(mount_point=mount)["data"]["keys"] == ["ada"]
            assert userpass.read_user("ada", mount_point=mount)["data"]["token_policies"] == ["dev"]
        with pytest.raises(exceptions.InvalidRequest, match="invalid username or password"):
            client.auth.userpass.login("ada", "secret-userpass", mount_point="staff")
        client.auth.userpass.update_password_on_user("ada", "new", mount_point="staff")
        auth = client.auth.userpass.login("ada", "new", use_token=False, mount_point="staff")["auth"]
        assert auth["lease_duration"] == 300
        client.sys.disable_auth_method("staff")
        other = hvac.Client(url=client.url, token=auth["client_token"])
        with pytest.raises(exceptions.Forbidden):
            other.auth.token.lookup_self()
        other.adapter.close()
        client.auth.userpass.delete_user("ada")
        with pytest.raises(exceptions.InvalidPath):
            client.auth.userpass.list_user()

    await with_client(node, work)
    assert await sql(node.settings.database_url, "SELECT 1 FROM users") == []
