"""AWS that does not answer is left alone, which leaves nothing behind, and used again once it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from secrethub.engines.aws.account import AT_ONCE
from tests.gateway.aws import MOUNT, creds, ready, service, target
from tests.gateway.aws_target import READ, Target
from tests.gateway.behind import ledger_is_good, sql
from tests.gateway.conftest import Node, free_port
from tests.gateway.kv import ok
from tests.gateway.shell import Cli

__all__ = ["ready", "service", "target"]  # the fixtures


async def test_left_alone_while_it_does_not_answer(ready: Node, target: Target, tmp_path: Path) -> None:
    """After three calls without an answer the others are refused at once, without an intent."""
    cli = Cli(ready, tmp_path)
    await ok(ready, "POST", f"{MOUNT}/roles/app", {"credential_type": "iam_user", "policy_document": READ})
    nowhere = f"http://127.0.0.1:{free_port()}"
    away = target.config(iam_endpoint=nowhere, sts_endpoint=nowhere, max_retries=0)
    await ok(ready, "POST", f"{MOUNT}/config/root", away)
    answer = await ready.call("GET", f"{MOUNT}/creds/app")
    assert (answer.status_code, "AWS cannot be reached" in answer.text) == (503, True), answer.text
    for _ in range(2):
        # What the call before left behind is taken back meanwhile, which asks AWS in vain, too.
        assert (await ready.call("GET", f"{MOUNT}/creds/app")).status_code == 503
    refused = 0
    for _ in range(10):
        before = await _held(ready)
        answer = await ready.call("GET", f"{MOUNT}/creds/app")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        if "it is asked again in a moment" in answer.text:
            refused += 1
            assert await _held(ready) <= before
    assert refused
    shown = await cli.json("engine", "aws", "health")
    assert (shown["breaker"] != "closed", shown["checks"]) == (True, [])
    await cli("engine", "aws", "health", "--check", code=1)
    assert (await ok(ready, "GET", f"{MOUNT}/health"))["failures"] > shown["failures"]
    await ok(ready, "POST", f"{MOUNT}/config/root", target.config())
    checked = await ok(ready, "POST", f"{MOUNT}/health")
    assert (checked["breaker"], checked["healthy"], len(checked["checks"])) == ("closed", True, 2)
    assert checked["checks"][1]["error"].startswith("AWS cannot be reached")
    assert target.opens((await creds(ready, "app"))["data"])
    await ledger_is_good(ready)


async def test_a_refusal_is_an_answer(ready: Node, target: Target) -> None:
    """A wrong key is told as often as anybody asks: AWS is there."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", {"credential_type": "iam_user", "policy_document": READ})
    await ok(ready, "POST", f"{MOUNT}/config/root", target.config(secret_key="x" * 40))
    for _ in range(5):
        assert "SignatureDoesNotMatch" in (await ready.call("GET", f"{MOUNT}/creds/app")).text
    checked = await ok(ready, "POST", f"{MOUNT}/health")
    assert (checked["healthy"], checked["breaker"], checked["failures"]) == (False, "closed", 0)
    assert "SignatureDoesNotMatch" in checked["checks"][0]["error"]


async def test_no_more_calls_at_once_than_so_many(ready: Node, target: Target) -> None:
    """However many ask at once, AWS is asked by so many of them; the others wait and are served."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", {"credential_type": "iam_user", "policy_document": READ})
    wanted = AT_ONCE + 6
    with target.gathering("create_user", AT_ONCE) as gathering:
        made = await asyncio.gather(*(creds(ready, "app") for _ in range(wanted)))
    assert gathering.most == AT_ONCE
    assert len({one["lease_id"] for one in made}) == wanted


async def _held(node: Node) -> int:
    return int((await sql(node.settings.database_url, "SELECT count(*) AS n FROM leases"))[0]["n"])
