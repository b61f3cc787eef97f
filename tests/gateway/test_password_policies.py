"""Password policies over HTTP: Vault's answers, who may, what is kept, and what a database writer gains."""

from __future__ import annotations

import base64
import json

import hvac

from tests.gateway.behind import entries, integrity_failures, sql
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.kv import ok, status
from tests.gateway.shell import Cli, cli
from tests.gateway.test_hvac import with_client

__all__ = ["cli"]  # the fixture

PLACE = "sys/policies/password"
STRONG = 'length = 24\nrule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" }\n'
DIGITS = 'length = 6 rule "charset" { charset = "0123456789" }'


async def test_hvac(node: Node) -> None:
    """The hvac client writes a policy, reads it back, makes passwords and deletes it."""

    def work(client: hvac.Client) -> None:
        assert client.list(PLACE) is None
        client.write(f"{PLACE}/Letters", policy=STRONG)
        assert client.list(PLACE)["data"]["keys"] == ["Letters"]
        assert client.read(f"{PLACE}/Letters")["data"] == {"policy": STRONG}
        made = {client.read(f"{PLACE}/Letters/generate")["data"]["password"] for _ in range(10)}
        assert len(made) == 10
        assert all(len(one) == 24 and one.islower() for one in made)
        client.delete(f"{PLACE}/Letters")
        assert client.read(f"{PLACE}/Letters") is None
        assert client.read(f"{PLACE}/Letters/generate") is None

    await with_client(node, work)


@SHARING
async def test_writing(shared_node: Node) -> None:
    """Base64 is taken; what is weak is warned of; what cannot be met, or has no proper name, is refused."""
    node = shared_node
    written = await node.call("PUT", f"{PLACE}/written-strong", json={"policy": STRONG})
    assert (written.status_code, written.content) == (204, b"")
    encoded = base64.b64encode(DIGITS.encode()).decode()
    weak = await node.call("POST", f"{PLACE}/written-pin", json={"policy": encoded})
    assert weak.status_code == 200
    assert "20 bits" in weak.json()["warnings"][0]
    assert await ok(node, "GET", f"{PLACE}/written-pin") == {"policy": DIGITS}
    assert (await ok(node, "GET", f"{PLACE}/written-pin/generate"))["password"].isdigit()
    for name, body in (
        ("written-p", {}),
        ("written-p", {"policy": "length = 2"}),
        ("written-p", {"policy": STRONG, "entropy_source": "seal"}),
        (".written-p", {"policy": STRONG}),
        ("written-" + "p" * 121, {"policy": STRONG}),
        ("written-p", {"policy": "#" + "x" * 262_144 + "\n" + STRONG}),
    ):
        assert await status(node, "POST", f"{PLACE}/{name}", body) == 400, (name, str(body)[:80])
    found = [key for key in (await ok(node, "LIST", PLACE))["keys"] if "written-" in key]
    assert found == ["written-pin", "written-strong"]
    assert await status(node, "DELETE", f"{PLACE}/nothing") == 204


async def test_commands(node: Node, cli: Cli) -> None:
    """A policy is written from standard input, shown, used and deleted."""
    words = ("policy", "password")
    assert "is written" in await cli(*words, "write", "strong", "-", stdin=STRONG)
    assert await cli(*words, "read", "strong") == STRONG
    assert "strong" in await cli(*words, "list")
    assert len((await cli(*words, "generate", "strong")).strip()) == 24
    made = json.loads(await cli("--format", "json", *words, "generate", "strong"))
    assert len(made["password"]) == 24
    assert "line 1, column 10" in await cli(*words, "write", "strong", "-", stdin="length = x", code=1)
    await cli(*words, "delete", "strong")
    await cli(*words, "generate", "strong", code=1)


@SHARING
async def test_rights(shared_node: Node) -> None:
    """Whoever may make passwords may not change what they are made after, nor see what is denied."""
    node = shared_node
    for name in ("open", "closed"):
        await ok(node, "POST", f"{PLACE}/{name}", {"policy": STRONG})
    token = await node.token("maker", native(f"{PLACE}/open/generate"))
    assert await status(node, "GET", f"{PLACE}/open/generate", token=token) == 200
    for method, path in (
        ("GET", f"{PLACE}/closed/generate"),
        ("GET", f"{PLACE}/open"),
        ("POST", f"{PLACE}/open"),
        ("DELETE", f"{PLACE}/open"),
        ("LIST", PLACE),
    ):
        assert await status(node, method, path, {"policy": DIGITS}, token=token) == 403, (method, path)
    rules = {PLACE: {"capabilities": ["list"]}, f"{PLACE}/closed": {"capabilities": ["deny"]}}
    lister = await node.token("lister", {"path": rules})
    every = (await ok(node, "LIST", PLACE))["keys"]
    assert {"open", "closed"} <= set(every)
    assert (await ok(node, "LIST", PLACE, token=lister))["keys"] == [key for key in every if key != "closed"]


@SHARING
async def test_passwords_are_not_written_down(shared_node: Node) -> None:
    """The ledger tells that a password was made, not which."""
    node = shared_node
    await ok(node, "POST", f"{PLACE}/quiet", {"policy": STRONG})
    made = (await ok(node, "GET", f"{PLACE}/quiet/generate"))["password"]
    url = node.settings.database_url
    told = await entries(url, operation="sys.password-policies.generate", path=f"{PLACE}/quiet/generate")
    assert [entry["outcome"] for entry in told] == ["done"]
    assert made not in repr(told)


async def test_a_database_writer_cannot_weaken_passwords(node: Node) -> None:
    """A policy that was edited behind Core's back is refused, not used."""
    await ok(node, "POST", f"{PLACE}/strong", {"policy": STRONG})
    assert await status(node, "GET", f"{PLACE}/strong/generate") == 200
    await sql(
        node.settings.database_url,
        "UPDATE password_policies SET body = replace(body::text, 'length = 24', 'length = 4')::jsonb",
    )
    for path in ("strong/generate", "strong"):
        assert await status(node, "GET", f"{PLACE}/{path}") == 500
    assert (await integrity_failures(node))["password_policies"] >= 1
