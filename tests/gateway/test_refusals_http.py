"""Refusals as clients meet them: status, words, headers; and the summary of what was throttled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serve.timing import Timing
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native, node_settings, running

_CANARY = "canary-of-refusals"


async def test_every_refusal_says_no_more_than_no(node: Node) -> None:
    """No token, a wrong, an expired and an unauthorised one get one and the same answer."""
    await node.call("POST", "secrets/a", json={"data": {"k": _CANARY}})
    other = await node.token("other", native("secrets/b"))
    brief = await node.token("reader", native("secrets/a"), ttl="1s")

    async def expired() -> bool:
        return (await node.call("GET", "secrets/a", brief)).status_code == 403

    await until(expired)
    for token in ("", "hvs.unknown", other, brief):
        answer = await node.call("GET", "secrets/a", token)
        assert answer.status_code == 403
        assert answer.json()["errors"] == ["permission denied"]
        assert answer.json()["code"] == "permission_denied"
        assert set(answer.json()) == {"errors", "code", "request_id"}
    denied = await entries(node.settings.database_url, outcome="denied")
    told = {entry["reason"] for entry in denied}
    assert {"no token was given", "unknown token"} <= told
    assert any("has expired" in reason for reason in told)
    assert all(
        entry["client"] == "127.0.0.1"
        for entry in await entries(node.settings.database_url, outcome="denied")
    )
    await ledger_is_good(node)


async def test_missing_and_forbidden_look_alike_to_strangers(node: Node) -> None:
    """Whoever may not read a path does not find out whether something is there."""
    await node.call("POST", "secrets/there", json={"data": {"k": _CANARY}})
    other = await node.token("other", native("secrets/b"))
    for path in ("secrets/there", "secrets/missing", "nowhere", "agents/x", "pki/certs"):
        assert (await node.call("GET", path, other)).status_code == 403


@pytest.mark.parametrize("timing", [Timing(summary=0.2)])
async def test_throttled_requests_are_summed_up(node: Node) -> None:
    """A flood of unknown tokens gets 429 with a time to wait, and one entry that counts what was left out."""
    url = node.settings.database_url
    before = len(await entries(url, outcome="denied"))
    statuses: list[int] = []

    async def flood() -> None:
        for _ in range(80):
            answer = await node.call("GET", "secrets/a", "hvs.unknown")
            statuses.append(answer.status_code)
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["code"] == "too_many_requests"

    await asyncio.gather(*(flood() for _ in range(8)))
    assert set(statuses) == {403, 429}
    assert len(await entries(url, outcome="denied")) - before == statuses.count(403)
    assert (await node.call("GET", "sys/mounts")).status_code == 200

    async def summed() -> bool:
        found = await entries(url, operation="request.throttled")
        return sum(entry["detail"]["count"] for entry in found) == statuses.count(429)

    await until(summed)
    assert "secrethub_throttled_total{" in (await node.call("GET", "sys/metrics")).text
    await ledger_is_good(node)


async def test_a_process_that_ends_sums_up(database_url: str, tmp_path: Path) -> None:
    """What a process has throttled since it said so last is in the ledger when it ends as it should."""
    async with running(node_settings(tmp_path, database_url)) as node:
        await node.initialise()
        await node.unseal()
        statuses: list[int] = []

        async def flood() -> None:
            for _ in range(80):
                answer = await node.call("GET", "secrets/a", "hvs.unknown")
                statuses.append(answer.status_code)

        await asyncio.gather(*(flood() for _ in range(8)))
    found = await entries(database_url, operation="request.throttled")
    assert sum(entry["detail"]["count"] for entry in found) == statuses.count(429) > 0


@pytest.mark.parametrize("timing", [Timing(summary=0.1)])
async def test_what_cannot_be_summed_up_now_is_later(node: Node) -> None:
    """Throttled requests are counted until that is written down, not until it was tried."""
    url = node.settings.database_url
    await sql(
        url,
        """CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE 'refused by a test' USING ERRCODE = 'cannot_connect_now'; END $$""",
    )
    await sql(
        url,
        """CREATE TRIGGER lose BEFORE INSERT ON audit_entries FOR EACH ROW
           WHEN (NEW.operation = 'request.throttled') EXECUTE FUNCTION lose()""",
    )
    statuses: list[int] = []

    async def flood() -> None:
        for _ in range(80):
            answer = await node.call("GET", "secrets/a", "hvs.unknown")
            statuses.append(answer.status_code)

    async def lost() -> bool:
        await node.call("GET", "sys/mounts")
        return bool(await sql(url, "SELECT 1 FROM audit_entries WHERE kind = 'lost'"))

    await asyncio.gather(*(flood() for _ in range(8)))
    # What could not be written is told of by the next stream.
    await until(lost)
    await sql(url, "DROP FUNCTION lose CASCADE")

    async def summed() -> bool:
        found = await entries(url, operation="request.throttled")
        return sum(entry["detail"]["count"] for entry in found) == statuses.count(429) > 0

    await until(summed)


async def test_what_is_not_understood_is_written_down(node: Node) -> None:
    """A request that is refused before anybody is asked leaves its path and reason, and is counted."""
    url = node.settings.database_url
    tried = (
        ("GET", "secret/data/a%2fb", {}, 400, "invalid_path"),
        ("GET", "secrets/a", {"X-Vault-Namespace": "team"}, 400, "invalid_request"),
        ("GET", "secrets/a", {"X-Vault-Wrap-TTL": "soon"}, 400, "invalid_request"),
        ("GET", "secrets/a?x=1&x=2", {}, 400, "invalid_request"),
        ("OPTIONS", "secrets/a", {}, 405, "unsupported_operation"),
        ("GET", "secrets/a", {"Host": "evil.example"}, 400, "invalid_request"),
    )
    for method, path, headers, status, code in tried:
        assert (await node.call(method, path, headers=headers)).status_code == status
        newest = (await entries(url, operation="unread"))[-1]
        assert newest["path"] == path.partition("?")[0]
        assert newest["reason"].startswith(f"{code}: ")
        assert (newest["outcome"], newest["client"], newest["door"]) == ("refused", "127.0.0.1", "http")
    large = await node.call("POST", "secrets/large", content=b"x" * (node.settings.max_body + 1))
    assert large.status_code == 413
    assert (await entries(url, operation="unread"))[-1]["path"] == "secrets/large"
    counted = (await node.call("GET", "sys/metrics")).text
    assert 'secrethub_requests_total{operation="unread",outcome="too_large"' in counted or (
        "too_large" in counted
    )
    await ledger_is_good(node)


async def test_a_stranger_fills_little_of_the_ledger(node: Node) -> None:
    """What somebody without an identity sends takes little room, however much it is."""
    url = node.settings.database_url
    body = {f"field-{n}": "x" for n in range(400)}
    path = "secret/data/" + "/".join("p" * 200 for _ in range(9))
    query = "&".join(f"q{n}=1" for n in range(60))
    assert (await node.call("POST", f"{path}?{query}", "", json=body)).status_code == 403
    login = {"role_id": "r", "secret_id": "s", **body}
    assert (await node.call("POST", "auth/approle/login", "", json=login)).status_code == 400
    rows = await sql(
        url, "SELECT octet_length(a::text) AS size FROM audit_entries a WHERE actor = 'anonymous'"
    )
    assert len(rows) >= 3
    assert max(row["size"] for row in rows) < 3000
    await ledger_is_good(node)
