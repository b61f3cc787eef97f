"""Every declared operation against every kind of caller: the right answer, and an entry in the ledger.

The operations come from the table that requests are routed by, so a new one is covered by itself. One that
takes more than a path and an empty body to be carried out by somebody with just the right to do so has it
in :data:`SETTINGS`; without it the test fails.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from secrethub.engines.engine import Operation
from secrethub.engines.mounts import Mount, Route
from secrethub.engines.question import question_of
from tests.gateway.behind import entries, ledger_is_good
from tests.gateway.conftest import Node
from tests.gateway.kv import ok, put

VERBS = {"read": "GET", "list": "LIST", "write": "POST", "delete": "DELETE", "patch": "PATCH"}
ACL = {"read": ["read"], "list": ["list"], "write": ["create", "update"], "delete": ["delete"]}
ACL["patch"] = ["patch"]
EVERY = ["create", "read", "update", "patch", "delete", "list"]
DONE = frozenset({200, 202, 204})
REACHED = frozenset({*DONE, 400, 404})
"""What somebody with the right may be answered: it is carried out, or there is something wrong with it."""
VALUES = {"path": "matrix/a", "algorithm": "sha2-256"}
LAST = frozenset({"sys.seal"})
"""Nothing can be asked after these."""
SPENT = frozenset({"token.revoke-self"})
"""A token cannot be used again after these."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an operation takes.

    Attributes:
        body: of the request.
        params: of the path.
        rules: further rules of Vault's language that its own checks ask for.
        statuses: of the answer, if others than what anybody with the right may get.
    """

    body: Any = None
    params: dict[str, str] = field(default_factory=dict)
    rules: dict[str, list[str]] = field(default_factory=dict)
    statuses: frozenset[int] = DONE


SETTINGS: dict[str, Setting] = {
    "kv.write": Setting(body={"data": {"k": "v"}}),
    "kv.read": Setting(params={"path": "there/a"}),
    "kv.metadata": Setting(params={"path": "there/a"}),
    "kv.readers": Setting(params={"path": "there/a"}, rules={"secret/metadata/there/": ["list"]}),
    "kv.compare": Setting(params={"path": "there/a"}, rules={"secret/data/there/a": ["read"]}),
    "sys.ui.mount": Setting(params={"path": "secret/x"}, rules={"secret/data/x": ["read"]}),
    "cubbyhole.write": Setting(body={"k": "v"}),
    "agents.enroll": Setting(body={"csr": "x", "name": "n"}, statuses=frozenset({403})),
    "agents.begin": Setting(statuses=frozenset({403})),
    "sys.tools.random": Setting(params={"first": "platform", "bytes": "16"}),
    "sys.policies.write": Setting(body={"policy": {"path": {}}}),
    "sys.password-policies.write": Setting(
        body={"policy": 'length = 20 rule "charset" { charset = "abcdefghijk" }'}
    ),
    "sys.quotas.rate-limit.write": Setting(body={"rate": 1_000_000}),
    "sys.quotas.lease-count.write": Setting(body={"max_leases": 1_000_000}),
    "sys.quotas.config.write": Setting(),
    "sys.rotation.write": Setting(
        body={"rotator": "generated"},
        params={"path": "secret/there/a"},
        rules={"secret/data/there/a": ["update"]},
    ),
    **{
        f"sys.rotation.{word}": Setting(
            params={"path": "secret/there/a"}, rules={"secret/data/there/a": ["update"]}, statuses=REACHED
        )
        for word in ("run", "pause", "resume", "delete")
    },
    "sys.seal": Setting(),
}
"""By the operation's name. Enrolment asks for an AppRole login, whatever policies say."""


@dataclass(frozen=True)
class Cell:
    """One operation at one mount."""

    mount: Mount
    route: Route
    one: Operation
    path: str

    @property
    def setting(self) -> Setting:
        return SETTINGS.get(self.one.name, Setting(statuses=REACHED))

    @property
    def sudo(self) -> list[str]:
        return ["sudo"] if self.one.sudo else []

    def exact(self) -> dict[str, Any]:
        """Vault's rule that grants this and no more."""
        rules = {self.path: [*ACL[self.one.method], *self.sudo], **self.setting.rules}
        if self.one.method == "list":
            rules[self.path + "/"] = rules[self.path]
        return _acl(rules)

    def native(self) -> dict[str, Any]:
        """The native rule that grants this and no more, beside what its own checks ask for."""
        when: Any = None
        question = question_of(self.route, self.one.method, self.path, when)
        granted = {question.native_capability, *self.sudo}
        if self.one.exists is not None:
            granted.add("create")
        own = {"effect": "allow", "paths": [question.native_path], "capabilities": sorted(granted)}
        return {"version": "1", "statements": [own]}

    def other(self) -> dict[str, Any]:
        """Vault's rules that grant everything but this."""
        granted = [name for name in [*EVERY, "sudo"] if name not in ACL[self.one.method]]
        return _acl({self.path: granted, self.path + "/": granted, "unrelated/*": EVERY})

    def denied(self) -> dict[str, Any]:
        """Vault's rules that grant everything and deny this."""
        return _acl({"*": [*EVERY, "sudo"], self.path: ["deny"], self.path + "/": ["deny"]})

    def without_sudo(self) -> dict[str, Any]:
        """Vault's rules that grant everything, but not sudo."""
        return _acl({"*": EVERY})


def _acl(rules: dict[str, list[str]]) -> dict[str, Any]:
    return {"path": {path: {"capabilities": granted} for path, granted in rules.items()}}


def placed(mount: Mount, one: Operation) -> str:
    """Return a path that leads to an operation."""
    values = {**VALUES, **SETTINGS.get(one.name, Setting()).params}
    bare = re.sub(r"\{(\w+)[*?]?\}", lambda found: values.get(found[1], "matrix"), one.pattern)
    return (mount.path + bare).rstrip("/")


async def cells(node: Node) -> AsyncIterator[Cell]:
    """Yield every operation of every mount, those that end everything at the end."""
    table = node.process.core.mounts
    late = []
    for mount in await table.load():
        for one in table.operations(mount):
            path = placed(mount, one)
            route = await table.route(one.method, path)
            assert route.operation is one, (one.name, path)
            cell = Cell(mount, route, one, path)
            if one.name in LAST:
                late.append(cell)
            else:
                yield cell
    for cell in late:
        yield cell


@pytest.fixture
async def full(node: Node) -> Node:
    """A node on which every kind of engine is mounted."""
    await ok(node, "POST", "sys/mounts/plain", {"type": "kv-v1"})
    await put(node, "there/a", {"k": "v"}, {"k": "w"})
    await ok(node, "POST", "plain/there/a", {"k": "v"})
    mounted = {mount.kind for mount in await node.process.core.mounts.load()}
    assert mounted == set(node.process.core.mounts.kinds), "a kind of engine is not covered"
    return node


class Matrix:
    """Asks, and keeps what was wrong."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.wrong: list[str] = []
        self.asked: list[tuple[Cell, str, int, str]] = []
        self.done: set[str] = set()
        self.tokens: dict[str, str] = {}

    async def token(self, name: str, policy: dict[str, Any] | None) -> str:
        """Return the token of this name, which has one policy and nothing else; from now on, this policy."""
        if policy is not None:
            await ok(self.node, "PUT", f"sys/policies/acl/matrix-{name}", {"policy": policy})
        if name not in self.tokens:
            body = {"policies": [f"matrix-{name}"], "no_default_policy": True}
            made = await self.node.call("POST", "auth/token/create", json=body)
            self.tokens[name] = str(made.json()["auth"]["client_token"])
        return self.tokens[name]

    async def ask(self, cell: Cell, caller: str, token: str, expected: frozenset[int]) -> int:
        """Ask as somebody; check the answer."""
        body = cell.setting.body
        options: dict[str, Any] = {"json": body} if body is not None else {}
        while True:
            answer = await self.node.call(VERBS[cell.one.method], cell.path, token, **options)
            if answer.status_code != 429:
                break
            # On a fast machine strangers come faster than they are admitted.
            await asyncio.sleep(float(answer.headers["retry-after"]))
        label = f"{cell.one.name} ({VERBS[cell.one.method]} {cell.path}) as {caller}"
        if answer.status_code not in expected:
            self.wrong.append(f"{label}: {answer.status_code} {answer.text[:200]}")
        if cell.one.audited:
            self.asked.append((cell, label, answer.status_code, answer.headers["x-request-id"]))
        return int(answer.status_code)

    async def check_ledger(self) -> None:
        """Check what the ledger says of all that was asked."""
        told: dict[str, list[dict[str, Any]]] = {}
        for entry in await entries(self.node.settings.database_url):
            told.setdefault(entry["request_id"], []).append(entry)
        for cell, label, status, request_id in self.asked:
            self._compare(cell, label, status, told.get(request_id, []))

    def _compare(self, cell: Cell, label: str, status: int, found: list[dict[str, Any]]) -> None:
        if not found:
            self.wrong.append(f"{label}: {status} without an entry")
            return
        last = found[-1]
        if last["operation"] != cell.one.name and not cell.one.keyless and not cell.one.sealing:
            self.wrong.append(f"{label}: the ledger calls it {last['operation']}")
        # Whom a login does not let in is told that the request is wrong.
        denied = status == 403 or (cell.one.public and status == 400 and last["outcome"] == "denied")
        if denied != (last["outcome"] == "denied"):
            self.wrong.append(f"{label}: {status}, and the ledger says {last['outcome']}")
        if cell.one.changes and status in DONE and found[0]["kind"] != "intent" and not cell.one.keyless:
            self.wrong.append(f"{label}: changed without an intent")


async def test_every_operation_against_every_caller(full: Node) -> None:
    """Nobody gets anything without the right, whoever has just the right does, and all is written down."""
    matrix = Matrix(full)
    no = frozenset({403})
    unrelated = await matrix.token("unrelated", _acl({"unrelated/*": [*EVERY, "sudo"]}))
    nothing = await matrix.token("nothing", None)
    async for cell in cells(full):
        if cell.one.public or not cell.one.audited or cell.one.keyless:
            # It answers without a token, and no token makes a difference.
            open_to_all = REACHED | no if cell.one.keyless else REACHED
            await matrix.ask(cell, "nobody", "", open_to_all)
            await matrix.ask(cell, "an unrelated token", unrelated, open_to_all)
            continue
        await matrix.ask(cell, "nobody", "", no)
        await matrix.ask(cell, "a stranger", "hvs.unknown", no)
        await matrix.ask(cell, "a token without policies", nothing, no)
        await matrix.ask(cell, "an unrelated token", unrelated, no)
        await matrix.ask(cell, "all but this", await matrix.token("other", cell.other()), no)
        await matrix.ask(cell, "denied", await matrix.token("denied", cell.denied()), no)
        if cell.one.sudo:
            await matrix.ask(
                cell, "all but sudo", await matrix.token("without_sudo", cell.without_sudo()), no
            )
        if cell.one.name not in LAST and not cell.setting.rules:
            await matrix.ask(
                cell, "exact, native", await matrix.token("native", cell.native()), cell.setting.statuses
            )
            if cell.one.name in SPENT:
                matrix.tokens.clear()
        status = await matrix.ask(
            cell, "exact", await matrix.token("exact", cell.exact()), cell.setting.statuses
        )
        if cell.one.name in SPENT:
            matrix.tokens.clear()
        if status in DONE:
            matrix.done.add(cell.one.name)
    await matrix.check_ledger()
    assert not matrix.wrong, "\n".join(matrix.wrong)
    # Not everything that is let through is then refused for what it says.
    assert len(matrix.done) > 40, sorted(matrix.done)
    await full.unseal()
    await ledger_is_good(full)
