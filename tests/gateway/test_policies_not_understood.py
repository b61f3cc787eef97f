"""Policies that are stored and not understood any more, as after a return to an older version."""

from __future__ import annotations

import pytest

from secrethub.engines.own_changes import own_changes
from secrethub.storage.authority import POLICIES
from tests.gateway.behind import entries, reasons
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, status

SOURCE = '{"version": "2", "statements": []}'


async def stored(node: Node, name: str) -> None:
    """Store a policy that only another version writes; the row is authentic."""
    core = node.process.core
    async with own_changes(core, "test") as fence, core.authority.change(fence) as change:
        await change.put(POLICIES, name, {"source": SOURCE, "language": "native"})


async def test_it_grants_nothing(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has it is refused everything, for it may deny what another grants; others are not."""
    await ok(node, "POST", "secret/data/a", {"data": {"k": 1}})
    rules = native("secrets/a")
    both = await node.token("newer", rules)
    await node.token("plain", rules)
    made = await node.call("POST", "auth/token/create", json={"policies": ["newer", "plain"]})
    mixed, accessor = (made.json()["auth"][name] for name in ("client_token", "accessor"))
    plain = await node.token("plain", rules)
    for token in (both, mixed, plain):
        assert await status(node, "GET", "secret/data/a", token=token) == 200
    await stored(node, "newer")
    for token in (both, mixed):
        for path in ("secret/data/a", "auth/token/lookup-self", "nothing/here"):
            refused = await node.call("GET", path, token)
            assert refused.status_code == 403, path
            assert refused.json()["errors"] == ["permission denied"]
    assert await status(node, "GET", "secret/data/a", token=plain) == 200
    assert await ok(node, "POST", "auth/token/lookup-accessor", {"accessor": accessor})
    # The ledger and the log say which policy it is, and where it is not understood.
    why = 'the policy newer is not understood: $.version: this version reads documents of version "1"'
    assert set(await reasons(node.settings.database_url, outcome="denied")) == {why}
    logged = [record.getMessage() for record in caplog.records if "newer" in record.getMessage()]
    assert logged == [why]
    refusals = await entries(node.settings.database_url, outcome="denied")
    told = await ok(node, "GET", f"sys/audit/refusals/{refusals[0]['request_id']}")
    assert told["entries"][0]["reason"] == why
    # Once it is written in a way that is understood, it says what it says.
    await ok(node, "PUT", "sys/policies/acl/newer", {"policy": rules})
    for token in (both, mixed):
        assert await status(node, "GET", "secret/data/a", token=token) == 200


async def test_operators_see_and_mend_it(node: Node) -> None:
    """It is listed and read as it is; what looks into it names it; it is no hindrance to anything else."""
    await stored(node, "newer")
    assert "newer" in (await ok(node, "LIST", "sys/policies/acl"))["keys"]
    assert (await ok(node, "GET", "sys/policies/acl/newer"))["policy"] == SOURCE
    trial = {"policies": ["newer"], "capability": "read", "path": "secrets/a"}
    answer = await node.call("POST", "sys/policies/simulate", json=trial)
    assert answer.status_code == 400
    assert "the policy newer is not understood: $.version" in answer.json()["errors"][0]
    made = await node.call("POST", "auth/token/create", json={"policies": ["newer"]})
    assert (made.status_code, made.json()["warnings"]) == (200, None)
    holder = made.json()["auth"]["client_token"]
    told = await node.call("POST", "sys/capabilities", json={"token": holder, "paths": ["secret/data/a"]})
    assert told.status_code == 403
    await ok(node, "DELETE", "sys/policies/acl/newer")
    assert await status(node, "GET", "auth/token/lookup-self", token=holder) == 200


async def test_a_replay_goes_on(node: Node) -> None:
    """Requests of whoever has it are counted as undecided; those of others are judged all the same."""
    await ok(node, "POST", "secret/data/a", {"data": {"k": 1}})
    rules = native("secrets/a")
    plain = await node.token("plain", rules)
    await ok(node, "PUT", "sys/policies/acl/newer", {"policy": rules})
    made = await node.call("POST", "auth/token/create", json={"policies": ["newer", "plain"]})
    for token in (made.json()["auth"]["client_token"], plain):
        assert await status(node, "GET", "secret/data/a", token=token) == 200
    await stored(node, "newer")
    why = (
        'the policy newer is not understood: $.version: this version reads documents of version "1": '
        "whoever has it is refused everything"
    )
    for name, changes in (("plain", 1), ("newer", 0)):
        body = {"name": name, "policy": native("secrets/other")}
        found = await ok(node, "POST", "sys/policies/replay", body)
        assert [(one["path"], one["after"]) for one in found["changes"]] == [
            ("secret/data/a", "denied")
        ] * changes, name
        assert found["undecided"].get(why) == 1, found
