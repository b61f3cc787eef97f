"""Rotation of secrets with values that are generated here: runs, schedules, rights, and what is told."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put, status
from tests.gateway.rotations import STEPS, configured, ended, fields, history, rotated


async def test_a_run_replaces_one_field(node: Node) -> None:
    """A rotation makes a version with a new value and leaves the other fields; the past says so."""
    written = '{"data":{"user":"u","ratio":1.10,"value":"old"}}'
    assert (await node.call("POST", "secret/data/app", content=written)).is_success
    await configured(node, options={"length": 40, "charset": "letters,digits,symbols"})
    past = await rotated(node)
    assert (past["outcome"], past["old_version"], past["new_version"]) == ("done", 1, 2)
    assert (past["trigger"], past["missing"], past["reason"]) == ("request", 0, "")
    found = await fields(node)
    assert found["user"] == "u"
    assert len(found["value"]) == 40
    assert found["value"] != "old"
    assert '"ratio":1.10' in (await node.call("GET", "secret/data/app")).text
    old = (await ok(node, "GET", "secret/data/app?version=1"))["data"]
    assert old == {"user": "u", "ratio": 1.1, "value": "old"}


async def test_a_secret_is_made_by_its_first_run(node: Node) -> None:
    """What is rotated need not be there before."""
    await configured(node, "secret/fresh/key", options={"field": "key", "length": 64, "charset": "hex"})
    past = await rotated(node, "secrets/fresh/key")
    assert (past["old_version"], past["new_version"]) == (0, 1)
    assert set((await fields(node, "secrets/fresh/key"))["key"]) <= set("0123456789abcdef")


async def test_values_after_a_password_policy(node: Node) -> None:
    """A named policy makes the value; without it there is no run, and nothing else may shape it besides."""
    policy = 'length = 24\nrule "charset" {\n  charset = "abc-"\n}'
    await ok(node, "POST", "sys/policies/password/few", {"policy": policy})
    await configured(node, options={"password_policy": "few"})
    assert (await rotated(node))["outcome"] == "done"
    value = (await fields(node))["value"]
    assert (len(value), set(value) <= set("abc-")) == (24, True)
    await ok(node, "DELETE", "sys/policies/password/few")
    told = await ok(node, "POST", "sys/rotation/run/secrets/app", {"dry_run": True})
    assert (told["possible"], told["problem"]) == (False, "there is no password policy few")
    assert await status(node, "POST", "sys/rotation/run/secrets/app") == 400
    for shape in ({"length": 40}, {"charset": "hex"}, {"field": ""}):
        body = {"rotator": "generated", "options": {"password_policy": "few", **shape}}
        assert await status(node, "POST", "sys/rotation/config/secrets/other", body) == 400, shape


async def test_every_step_is_in_the_ledger(node: Node) -> None:
    """Each step is written down before and after; values are masked; state and ledger agree."""
    await put(node, "app", {"value": "canary-old-value"})
    await configured(node)
    await rotated(node)
    value = (await fields(node))["value"]
    url = node.settings.database_url
    [end] = await until(lambda: entries(url, operation="rotation.end", outcome="done"))
    for step in STEPS:
        outcomes = [entry["outcome"] for entry in await entries(url, operation=f"rotation.{step}")]
        assert outcomes == {"confirm": ["done"], "retire": ["begun"]}.get(step, ["begun", "done"])
    assert end["outcome"] == "done"
    assert end["path"] == "sys/rotation/config/secret/app"
    promoted = (await entries(url, operation="rotation.promote"))[0]["detail"]
    assert promoted["fields"]["value"].startswith("hmac-sha256:")
    for table in ("audit_entries", "rotations", "rotation_history", "changes"):
        text = "".join(row["t"] for row in await sql(url, f"SELECT t::text AS t FROM {table} t"))
        assert value not in text
        assert "canary-old-value" not in text
    await ledger_is_good(node)


async def test_schedules_rotate_by_themselves(node: Node) -> None:
    """An interval goes on until it rests, and what it left out then is not made up for."""
    await configured(node, every="1s")
    await ended(node, 2)
    assert (await ok(node, "POST", "sys/rotation/pause/secrets/app"))["paused"]

    async def at_rest() -> bool:
        return (await ok(node, "GET", "sys/rotation/config/secrets/app"))["run"] is None

    await until(at_rest)
    runs = (await ok(node, "GET", "sys/rotation/config/secrets/app"))["runs"]
    assert (await ok(node, "GET", "sys/rotation/config/secrets/app"))["next_at"] is None
    assert (await history(node))[0]["trigger"] == "schedule"
    by_hand = await rotated(node)
    assert by_hand["run"] == runs + 1
    await configured(node, every="1h")
    assert (await ok(node, "GET", "sys/rotation/config/secrets/app"))["paused"]
    await ok(node, "POST", "sys/rotation/resume/secrets/app")
    about = await ok(node, "GET", "sys/rotation/config/secrets/app")
    assert (about["paused"], about["runs"]) == (False, runs + 1)
    assert about["next_at"] is not None


async def test_missed_runs_are_caught_up_once(node: Node) -> None:
    """While the cluster is sealed nothing is rotated; afterwards once, however many instants passed."""
    await configured(node, every="1s")
    await ended(node, 1)
    await ok(node, "PUT", "sys/seal")
    await asyncio.sleep(3.2)
    await node.unseal()
    runs = await until(lambda: _beyond(node, 1))
    begun = [run["began_at"] for run in runs]
    assert len(begun) <= 3


async def _beyond(node: Node, number: int) -> list[dict[str, Any]]:
    answer = await node.call("GET", "sys/rotation/history/secrets/app")
    if answer.status_code != 200:
        return []
    runs: list[dict[str, Any]] = answer.json()["data"]["runs"]
    return runs if runs[0]["run"] > number else []


async def test_a_dry_run_changes_nothing(node: Node) -> None:
    """It tells what would be, and neither the secret nor the rotation moves."""
    await put(node, "app", {"value": "old"})
    await configured(node)
    told = await ok(node, "POST", "sys/rotation/run/secrets/app", {"dry_run": True})
    assert told == {
        "dry_run": True,
        "possible": True,
        "problem": "",
        "fields": ["value"],
        "old_version": 1,
        "new_version": 2,
        "agents": 0,
    }
    assert await fields(node) == {"value": "old"}
    assert (await ok(node, "GET", "sys/rotation/config/secrets/app"))["runs"] == 0


async def test_a_store_that_is_another_is_not_written(node: Node) -> None:
    """A rotation belongs to the store that it was configured for; its run says why it was undone."""
    await ok(node, "POST", "sys/mounts/own", {"type": "kv", "options": {"version": "2"}})
    await configured(node, "own/app", every="1s")
    await ok(node, "DELETE", "sys/mounts/own")
    await ok(node, "POST", "sys/mounts/own", {"type": "kv", "options": {"version": "2"}})
    past = await ended(node, 1, "own/app")
    assert (past["outcome"], past["new_version"]) == ("undone", 0)
    assert past["reason"] == "another store is mounted there by now"
    assert await status(node, "GET", "own/data/app") == 404
    assert await status(node, "POST", "sys/rotation/run/own/app") == 400


async def test_the_past_comes_in_pages(node: Node) -> None:
    """The newest run is first, and a page goes on behind a run's number."""
    await configured(node)
    for _ in range(3):
        await rotated(node)
    assert [run["run"] for run in await history(node)] == [3, 2, 1]
    page = await ok(node, "GET", "sys/rotation/history/secrets/app?before=3&limit=1")
    assert [run["run"] for run in page["runs"]] == [2]


async def test_whoever_rotates_may_write_the_secret(node: Node) -> None:
    """The right to rotate alone overwrites nobody's secret; with the right to write it does."""
    await put(node, "app", {"value": "old"})
    rotate = native("sys/rotation/**", capabilities=("read", "update", "delete", "list"))
    token = await node.token("rotate", rotate)
    calls = [
        ("POST", "sys/rotation/config/secrets/app", {"rotator": "generated"}),
        ("DELETE", "sys/rotation/config/secrets/app", None),
        *(("POST", f"sys/rotation/{word}/secrets/app", None) for word in ("run", "pause", "resume")),
    ]
    for method, path, body in calls:
        assert await status(node, method, path, body, token=token) == 403, path
    write = native("secrets/app", capabilities=("update",))
    write["statements"] += rotate["statements"]
    token = await node.token("both", write)
    assert await status(node, *calls[0], token=token) == 204
    assert await status(node, "POST", "sys/rotation/run/secrets/app", token=token) == 200
    assert await status(node, "GET", "secrets/app", token=token) == 403


async def test_what_cannot_be_is_refused(node: Node) -> None:
    """A configuration that could not work is refused at once."""
    generated: dict[str, Any] = {"rotator": "generated"}
    for body in (
        {},
        {"rotator": "none"},
        {**generated, "unknown": 1},
        {**generated, "every": "1h", "cron": "0 0 * * *"},
        {**generated, "cron": "bad"},
        {**generated, "zone": "Mars/Base"},
        {**generated, "late": "never"},
        {**generated, "options": {"length": 4}},
        {**generated, "options": {"length": 10**9}},
        {**generated, "options": {"charset": "emoji"}},
        {**generated, "options": {"password": "x"}},
    ):
        assert await status(node, "POST", "sys/rotation/config/secrets/app", body) == 400, body


async def test_only_secrets_with_versions_are_rotated(node: Node) -> None:
    """No path of another engine, and none that belongs to the dynamic engines, can be rotated."""
    await ok(node, "POST", "sys/mounts/one", {"type": "kv", "options": {"version": "1"}})
    for path in ("one/app", "pki/app", "sys/app", "secrets", "secret", "secret/dynamic/x", "nowhere/app"):
        assert await status(node, "POST", f"sys/rotation/config/{path}", {"rotator": "generated"}) == 400, (
            path
        )


async def test_a_row_that_was_edited_is_not_acted_on(node: Node) -> None:
    """Whoever writes to the database rotates nothing: the row is refused and counted."""
    await put(node, "app", {"value": "old"})
    await configured(node)
    url = node.settings.database_url
    await sql(url, "UPDATE rotations SET expires_at = now()")
    await until(lambda: _refused(node))
    assert await fields(node) == {"value": "old"}
    assert await history_status(node) == 500


async def history_status(node: Node) -> int:
    return await status(node, "GET", "sys/rotation/history/secrets/app")


async def _refused(node: Node) -> bool:
    text = (await node.call("GET", "sys/metrics")).text
    return "secrethub_integrity_failures_total{" in text and 'table="rotations"' in text
