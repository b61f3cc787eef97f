"""Commands on hosts: what they are told of a rotation, whose word counts, and what dies when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import identity as identities
from agent.conversation import converse
from agent.state import open_state
from secrethub.errors import NotFound, SecretHubError
from secrethub.wire.messages import AnswerOrder, Noted, Ordered, TakeOrder
from serve.timing import Timing
from tests.gateway.behind import OURS, entries, refusing, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put
from tests.gateway.pair import second
from tests.gateway.rotation_hosts import RotationHost, enrolled_host
from tests.gateway.rotations import configured, ended, fields, history, rotated
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture

PATH = "secrets/app/db"
SCRIPT = """#!/bin/sh
cd {folder}
told=$(cat)
env > environment
echo "$told" >> called
echo "$*" >> arguments
if [ -e "on-$1" ]; then . "./on-$1"; fi
"""


class CommandHost(RotationHost):
    """A host with a command, and what a test has it do."""

    def called(self) -> list[dict[str, Any]]:
        """Return what the command was told, oldest first."""
        found = self.folder / "called"
        return [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []

    def steps(self) -> list[str]:
        """Return the steps that it was called for."""
        return [call["step"] for call in self.called()]

    def on(self, step: str, script: str) -> None:
        """Have the command do something at a step, with what it was told in ``$told``."""
        (self.folder / f"on-{step}").write_text(script)

    def anew(self) -> None:
        """Forget all that."""
        for name in ("called", "arguments", *(f"on-{step}" for step in ("create", "verify", "undo"))):
            (self.folder / name).unlink(missing_ok=True)


@pytest.fixture
async def host(node: Node, tmp_path: Path) -> AsyncIterator[CommandHost]:
    """A host with the command ``set``."""
    await put(node, "app/db", {"value": "the-first-value", "host": "db"})
    folder = tmp_path / "host"
    folder.mkdir()
    script = folder / "set"
    script.write_text(SCRIPT.format(folder=folder))
    script.chmod(0o700)
    more = f'[[command]]\nname = "set"\nrun = [{json.dumps(str(script))}]\ntimeout = "1s"'
    async with enrolled_host(node, folder, "nothing", more) as started:
        started.__class__ = CommandHost
        await started.holds("nothing")
        assert isinstance(started, CommandHost)
        yield started


async def configure(node: Node, path: str = PATH, **options: str) -> None:
    """Have the secret rotated by the command."""
    given = {"agent": "host-1", "command": "set", **options}
    await configured(node, path, rotator="agent-command", options=given, confirm_within=0)


def answering(number: int, order: str, attempt: int) -> AnswerOrder:
    """Return the word that the first step was done."""
    return AnswerOrder(id=number, order=order, step="create", attempt=attempt, outcome="done")


async def test_a_dry_run_calls_no_command(node: Node, host: CommandHost) -> None:
    """It says whether there is such an agent, and neither that nor the secret hears of anything."""
    run, dry = f"sys/rotation/run/{PATH}", {"dry_run": True}
    await configure(node)
    told = await ok(node, "POST", run, dry)
    assert (told["possible"], told["problem"], told["fields"]) == (True, "", ["value"])
    await configure(node, agent="host-2")
    told = await ok(node, "POST", run, dry)
    assert (told["possible"], "host-2" in told["problem"]) == (False, True), told
    assert await sql(node.settings.database_url, "SELECT 1 FROM agent_orders") == []
    assert host.called() == []
    assert (await fields(node, PATH))["value"] == "the-first-value"
    assert (await ok(node, "GET", f"sys/rotation/config/{PATH}"))["runs"] == 0


# Each is heard of; nobody waits for a look.
@pytest.mark.parametrize("timing", [Timing(orders=3600.0)])
async def test_each_step_is_told_with_what_it_is_about(node: Node, host: CommandHost) -> None:
    """In order, with one id, and values on the standard input only; what failed for now is called again."""
    host.on("verify", "[ -e once ] || { touch once; exit 75; }")
    await configure(node)
    past = await rotated(node, PATH)
    assert past["outcome"] == "done", past
    value = (await fields(node, PATH))["value"]
    calls = host.called()
    [identity] = {call.pop("id") for call in calls}
    base = {"path": "secret/app/db", "field": "value"}
    assert calls == [
        {"step": "create", **base, "value": value},
        {"step": "verify", **base, "value": value},
        {"step": "verify", **base, "value": value},
        {"step": "retire", **base, "old_value": "the-first-value"},
    ]
    lines = (host.folder / "arguments").read_text().splitlines()
    assert lines == [f"{step} {identity}" for step in ("create", "verify", "verify", "retire")]
    around = (host.folder / "environment").read_text()
    assert value not in around
    assert "SECRETHUB_" not in around
    ledger = await entries(node.settings.database_url)
    given = [entry for entry in ledger if entry["operation"] == "agents.order"]
    assert [entry["detail"]["step"] for entry in given] == ["create", "verify", "verify", "retire"]
    assert value not in json.dumps(ledger, default=str)
    assert await sql(node.settings.database_url, "SELECT 1 FROM agent_orders") == []


@pytest.mark.parametrize("timing", [Timing(orders=3600.0)])
async def test_another_process_carries_the_rotation_on(node: Node, host: CommandHost, second: Second) -> None:
    """The process that the agent is connected to hears of orders that another one has written."""
    await node.tree.workplace.take_back()
    await configure(node)
    assert (await rotated(node, PATH))["outcome"] == "done"
    assert host.steps() == ["create", "verify", "retire"]
    assert second.child.is_alive()


async def test_what_fails_is_undone_and_told_without_values(node: Node, host: CommandHost) -> None:
    """Exit code and what it said are in the history, a value that it said is not; the secret stays."""
    await configure(node)
    host.on("verify", 'echo "no good: $told" >&2; exit 3')
    past = await rotated(node, PATH)
    assert past["outcome"] == "undone"
    assert "exit code 3: no good: {" in past["reason"]
    told = host.called()[-1]
    assert (told["step"], told["old_value"]) == ("undo", "the-first-value")
    assert told["value"] not in json.dumps([past, await entries(node.settings.database_url)], default=str)
    assert "***" in past["reason"]
    host.anew()
    host.on("create", "sleep 60")
    past = await rotated(node, PATH)
    assert (past["outcome"], host.steps()) == ("undone", ["create", "undo"])
    assert "did not end within 1 seconds" in past["reason"]
    host.anew()
    await configure(node, command="another")
    past = await rotated(node, PATH)
    assert (past["outcome"], host.called()) == ("undone", [])
    assert "no such command" in past["reason"]
    await put(node, "other/db", {"value": "x"})
    await configure(node, "secrets/other/db")
    past = await rotated(node, "secrets/other/db")
    assert (past["outcome"], host.called()) == ("undone", [])
    assert "may not read" in past["reason"]
    assert (await fields(node, PATH))["value"] == "the-first-value"


async def test_an_agent_that_dies_or_is_away(node: Node, host: CommandHost) -> None:
    """A step that was begun is called again with the same id; who is away too long is told of clearly."""
    await configure(node)
    host.on("create", "while [ ! -e go ]; do sleep 0.05; done")
    begun = await ok(node, "POST", f"sys/rotation/run/{PATH}")

    async def called() -> bool:
        return bool(host.called())

    await until(called)
    await host.kill()
    (host.folder / "go").touch()
    await host.start()
    assert (await ended(node, begun["run"], PATH))["outcome"] == "done"
    first, again, *_ = host.called()
    assert first == again
    await host.kill()
    host.anew()
    await configure(node, within="1s")
    before = (await fields(node, PATH))["value"]
    past = await rotated(node, PATH)
    assert past["outcome"] == "undone"
    assert "the agent was away or busy for 1 seconds" in past["reason"]
    assert (await fields(node, PATH))["value"] == before
    assert host.called() == []


async def test_nobody_answers_for_another(node: Node, host: CommandHost, tmp_path: Path) -> None:
    """Another agent is given nothing and not believed; nor is the right one about what it was not given."""
    await configure(node)
    folder = tmp_path / "other"
    folder.mkdir()
    async with enrolled_host(node, folder, "nothing", name="host-2") as other:
        await other.holds("nothing")
    await host.kill()
    begun = await ok(node, "POST", f"sys/rotation/run/{PATH}")

    async def ordered() -> str | None:
        rows = await sql(node.settings.database_url, "SELECT rotation FROM agent_orders")
        return f"{rows[0]['rotation']}/{begun['run']}" if rows else None

    order = await until(ordered)
    assert order is not None
    for place in (folder, host.folder):
        with open_state(place / "state") as state:
            identity = identities.load(state)
        assert identity is not None
        async with converse(identity, node.settings.agent_urls[0], "x") as talk:
            listening = asyncio.create_task(talk.listen(lambda _push: None))
            if place == folder:
                assert (await talk.ask(lambda n: TakeOrder(id=n), Ordered)).order is None
            for attempt in (0, 1, 2):
                with pytest.raises(NotFound):
                    await talk.ask(
                        partial(answering, order=order, attempt=attempt),
                        Noted,
                    )
            listening.cancel()
    refused = [
        entry
        for entry in await entries(node.settings.database_url, operation="agents.order-answer")
        if entry["outcome"] == "refused"
    ]
    assert len(refused) == 6
    assert await history(node, PATH) == []
    await host.start()
    assert (await ended(node, begun["run"], PATH))["outcome"] == "done"


async def test_orders_are_not_written_behind_cores_back(node: Node, host: CommandHost) -> None:
    """An order that was edited, or is a copy of another one, is not given out, and that is told of."""
    await configure(node)
    await host.kill()
    begun = await ok(node, "POST", f"sys/rotation/run/{PATH}")
    database = node.settings.database_url
    await until(partial(sql, database, "SELECT 1 FROM agent_orders"))
    # The rotation itself looks at its order as well, and would put it right.
    await sql(database, "CREATE TABLE kept AS SELECT * FROM agent_orders")
    with open_state(host.folder / "state") as state:
        identity = identities.load(state)
    assert identity is not None
    edits = ("step = 'retire'", "run = run + 1", "attempt = attempt + 1", "key = key || 'x'", "said = 'x'")
    async with (
        refusing(database, "INSERT OR UPDATE OR DELETE ON agent_orders", OURS),
        converse(identity, node.settings.agent_urls[0], "x") as talk,
    ):
        listening = asyncio.create_task(talk.listen(lambda _push: None))
        for edit in edits:
            await sql(database, "DELETE FROM agent_orders")
            await sql(database, "INSERT INTO agent_orders SELECT * FROM kept")
            await sql(database, f"UPDATE agent_orders SET {edit}")
            with pytest.raises(SecretHubError) as refused:
                await talk.ask(lambda n: TakeOrder(id=n), Ordered)
            assert refused.value.message == "integrity failure", edit
        listening.cancel()
    told = await entries(database, operation="agents.order")
    assert [entry["outcome"] for entry in told] == ["refused"] * len(edits)
    assert all("the row was edited" in entry["reason"] for entry in told)
    assert host.called() == []
    await sql(database, "DELETE FROM agent_orders")
    await host.start()
    past = await ended(node, begun["run"], PATH)
    # An order of before is one of another run: it is authentic, and nobody is given it.
    host.anew()
    await sql(database, "INSERT INTO agent_orders SELECT * FROM kept")
    again = await rotated(node, PATH)
    assert again["outcome"] == "done", (past, again)
    assert host.steps() == ["create", "verify", "retire"]


async def test_a_command_is_for_those_who_may_have_it_run(node: Node, host: CommandHost) -> None:
    """The right to a secret and its rotation is not the right to an agent's commands."""
    mine = native("secrets/app/**", "sys/rotation/**", capabilities=("read", "create", "update"))
    token = await node.token("app", mine)
    options = {"agent": "host-1", "command": "set"}
    body = {"rotator": "agent-command", "options": options}
    assert (await node.call("POST", f"sys/rotation/config/{PATH}", token, json=body)).status_code == 403
    mine["statements"] += native("agents/host-1/commands/set", capabilities=("update",))["statements"]
    token = await node.token("app-2", mine)
    assert (await node.call("POST", f"sys/rotation/config/{PATH}", token, json=body)).is_success
    for wrong in (
        {"agent": "a/b"},
        {"command": "/bin/sh"},
        {"command": ""},
        {"within": "0"},
        {"length": "3"},
    ):
        body = {"rotator": "agent-command", "options": {**options, **wrong}}
        answer = await node.call("POST", f"sys/rotation/config/{PATH}", json=body)
        assert answer.status_code == 400, answer.text
    await configure(node, agent="nobody")
    refused = await node.call("POST", f"sys/rotation/run/{PATH}")
    assert refused.status_code == 400
    assert host.called() == []
