"""Rate limits: what they are about, what they count, and that nobody fills the ledger beyond them."""

from __future__ import annotations

import asyncio
from typing import Any

from secrethub.engines.quotas import MILLI
from secrethub.operations.quotas import summarise
from tests.gateway.behind import entries, ledger_is_good, sql
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, status
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture

FOREVER = {"interval": "720h", "group_by": "none"}
"""What a budget does not get back while a test runs is what it began with."""


async def limited(node: Node, name: str, rate: int, path: str = "", **body: Any) -> None:
    """Write a rate limit whose budget is spent once."""
    await ok(node, "POST", f"sys/quotas/rate-limit/{name}", {"rate": rate, "path": path, **FOREVER, **body})


async def admitted(node: Any, path: str, times: int, token: str, at_once: int = 20) -> int:
    """Read a path many times and return how often that was not refused by a quota."""
    count = 0
    for begin in range(0, times, at_once):
        answers = await asyncio.gather(
            *(node.call("GET", path, token) for _ in range(min(at_once, times - begin)))
        )
        for answer in answers:
            assert answer.status_code in {200, 403, 404, 429}, answer.text
            count += answer.status_code != 429
    return count


async def knows(process: Second, node: Node) -> None:
    """Let a process look at the database: what it answers is as new as that, and then its quotas are."""
    await process.call("LIST", "sys/quotas/rate-limit", node.root)


async def login(node: Node) -> str:
    """Log in by the role ``web`` and return the token."""
    role_id = (await ok(node, "GET", "auth/approle/role/web/role-id"))["role_id"]
    secret_id = (await ok(node, "POST", "auth/approle/role/web/secret-id"))["secret_id"]
    body = {"role_id": role_id, "secret_id": secret_id}
    answer = await node.call("POST", "auth/approle/login", "", json=body)
    return str(answer.json()["auth"]["client_token"])


async def test_quotas_are_kept(node: Node) -> None:
    """Written, changed, told, listed and lifted as Vault's clients expect."""
    assert await status(node, "LIST", "sys/quotas/rate-limit") == 404
    await ok(node, "POST", "sys/quotas/rate-limit/all", {"rate": 1000, "type": "rate-limit"})
    body = {"rate": "50.5", "path": "secret/", "interval": "2m", "block_interval": 30}
    await ok(node, "POST", "sys/quotas/rate-limit/store", body)
    told = await ok(node, "GET", "sys/quotas/rate-limit/store")
    assert told == {
        "name": "store",
        "type": "rate-limit",
        "path": "secret/",
        "role": "",
        "rate": 50.5,
        "interval": 120,
        "block_interval": 30,
        "group_by": "ip",
        "inheritable": False,
    }
    await ok(node, "POST", "sys/quotas/rate-limit/store", {"rate": 60})
    told = await ok(node, "GET", "sys/quotas/rate-limit/store")
    assert (told["rate"], told["path"], told["interval"]) == (60, "secret/", 120)
    assert (await ok(node, "LIST", "sys/quotas/rate-limit"))["keys"] == ["all", "store"]
    await ok(node, "DELETE", "sys/quotas/rate-limit/store")
    await ok(node, "DELETE", "sys/quotas/rate-limit/store")
    assert await status(node, "GET", "sys/quotas/rate-limit/store") == 404
    exempt = ["sys/policies/acl/Ops", "secret/data/x", "pki/*"]
    await ok(node, "POST", "sys/quotas/config", {"rate_limit_exempt_paths": exempt})
    assert (await ok(node, "GET", "sys/quotas/config"))["rate_limit_exempt_paths"] == [
        "pki/*",
        "secret/data/x",
        "sys/policies/acl/ops",
    ]
    await ledger_is_good(node)


async def test_what_cannot_be_limited(node: Node) -> None:
    """What makes no sense, or would not be done, is refused and leaves nothing behind."""
    await ok(node, "POST", "sys/quotas/rate-limit/taken", {"rate": 10, "path": "secret/"})
    for name, body in (
        ("x", {}),
        ("x", {"rate": 0}),
        ("x", {"rate": -1}),
        ("x", {"rate": "many"}),
        ("x", {"rate": "nan"}),
        ("x", {"rate": "inf"}),
        ("x", {"rate": True}),
        ("x", {"rate": 1e300}),
        ("x", {"rate": 10, "path": "nowhere/"}),
        ("x", {"rate": 10, "path": "secrets/a"}),
        ("x", {"rate": 10, "path": "secret/d*ta"}),
        ("x", {"rate": 10, "path": "secret/../sys"}),
        ("x", {"rate": 10, "path": "secret/"}),
        ("x", {"rate": 10, "path": "secret/", "role": "web"}),
        ("x", {"rate": 10, "path": "auth/approle/login", "role": "web"}),
        ("x", {"rate": 10, "interval": "-1s"}),
        ("x", {"rate": 10, "interval": "9999h"}),
        ("x", {"rate": 10, "group_by": "whim"}),
        ("x", {"rate": 10, "type": "lease-count"}),
        ("x", {"rate": 10, "secondary_rate": 5}),
        ("x", {"rate": 10, "burst": 5}),
        ("x", {"rate": 10, "name": "y"}),
        ("a b", {"rate": 10}),
    ):
        assert await status(node, "POST", f"sys/quotas/rate-limit/{name}", body) == 400, (name, body)
    for body in (
        {"rate_limit_exempt_paths": ["a**"]},
        {"rate_limit_exempt_paths": [""]},
        {"rate_limit_exempt_paths": ["pki/*", "secrets/app/*"]},
        {"enable_rate_limit_audit_logging": True},
        {"enable_rate_limit_response_headers": True},
        {"other": 1},
    ):
        assert await status(node, "POST", "sys/quotas/config", body) == 400, body
    assert (await ok(node, "LIST", "sys/quotas/rate-limit"))["keys"] == ["taken"]


async def test_the_excess_is_refused_and_counted(node: Node) -> None:
    """Exactly the budget is admitted; the rest is told when to come again, and is one entry, not many."""
    token = await node.token("reader", native("secrets/**"))
    await limited(node, "store", 30, "secret/")
    assert await admitted(node, "secret/data/a", 100, token) == 30
    refused = await node.call("GET", "secret/data/a", token)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    url = node.settings.database_url
    assert len(await entries(url, path="secret/data/a")) == 30
    await summarise(node.process.core)
    told = await entries(url, operation="request.throttled")
    assert [entry["detail"] for entry in told] == [{"count": 71, "quota": "store"}]
    # Whoever may lift the quota is not kept from it, and everything else goes on.
    assert await status(node, "GET", "auth/token/lookup-self") == 200
    await ok(node, "DELETE", "sys/quotas/rate-limit/store")
    assert await status(node, "GET", "secret/data/a", token=token) == 404
    await ledger_is_good(node)


async def test_a_read_again_is_counted_once(node: Node, second: Second) -> None:
    """Reading again counts once, whether it was decided before, is decided anew, or is refused."""
    await ok(node, "POST", "secret/data/a", {"data": {}})
    token = await node.token("reader", native("secrets/**"))
    await limited(node, "store", 30, "secret/")
    assert await admitted(node, "secret/data/a", 10, token, at_once=1) == 10
    for number in range(5):
        # Noticed by the entry of the next read only, which is decided anew then.
        body = {"policy": native("x")}
        answer = await second.call("PUT", f"sys/policies/acl/p{number}", node.root, json=body)
        assert answer.status_code == 204, answer.text
        assert await status(node, "GET", "secret/data/a", token=token) == 200
    assert await admitted(node, "secret/data/a", 20, token, at_once=1) == 15
    await summarise(node.process.core)
    told = await entries(node.settings.database_url, operation="request.throttled")
    assert [entry["detail"]["count"] for entry in told] == [5]


async def test_two_processes_share_a_budget(node: Node, second: Second) -> None:
    """However requests are spread, no more is admitted than the budget and what two processes may credit."""
    token = await node.token("reader", native("secrets/**"))
    await limited(node, "store", 60, "secret/")
    counts = await asyncio.gather(
        admitted(node, "secret/data/a", 100, token), admitted(second, "secret/data/a", 100, token)
    )
    credit = 2 * (60 // 20)
    assert 60 <= sum(counts) <= 60 + credit, counts
    assert await admitted(second, "secret/data/a", 20, token) == 0
    await limited(node, "store", 3, "secret/")
    await knows(second, node)
    assert await admitted(second, "secret/data/a", 20, token) == 3
    await ok(node, "DELETE", "sys/quotas/rate-limit/store")
    await knows(second, node)
    assert await admitted(second, "secret/data/a", 20, token) == 20


async def test_what_a_killed_process_had_is_not_spent_twice(node: Node, second: Second) -> None:
    """A process that dies takes its share along: nobody is admitted for it again."""
    token = await node.token("reader", native("secrets/**"))
    await limited(node, "store", 40, "secret/")
    before = await admitted(second, "secret/data/a", 30, token)
    second.kill()
    after = await admitted(node, "secret/data/a", 60, token)
    assert before == 30
    assert after <= 10 + 2


async def test_the_most_special_quota_counts_alone(node: Node) -> None:
    """Path before mount before everything; a request spends one budget."""
    token = await node.token("reader", native("secrets/**", "pki/**"))
    await limited(node, "all", 50)
    await limited(node, "store", 20, "secret/")
    await limited(node, "below", 10, "secret/data/team/*")
    await limited(node, "one", 5, "secret/data/team/a")
    assert await admitted(node, "secret/data/team/a", 30, token) == 5
    assert await admitted(node, "secret/data/team/b", 30, token) == 10
    assert await admitted(node, "secret/data/c", 30, token) == 20
    assert await admitted(node, "pki/cert/ca_chain", 20, token) == 20
    await ok(node, "POST", "sys/quotas/config", {"rate_limit_exempt_paths": ["secret/data/team/*"]})
    assert await admitted(node, "secret/data/team/a", 30, token) == 30


async def test_budgets_of_identities_and_addresses(node: Node) -> None:
    """A role is one identity, however often it logs in; strangers from one address are one as well."""
    policy = native("secrets/**", "auth/token/create", capabilities=("create", "read", "update"))
    await node.token("one", policy)
    other = await node.token("other", policy)
    await ok(node, "POST", "auth/approle/role/web", {"token_policies": ["one"]})
    one, again = await login(node), await login(node)
    child = (await node.call("POST", "auth/token/create", one)).json()["auth"]["client_token"]
    await limited(node, "each", 10, "secret/", group_by="entity_then_ip")
    assert await admitted(node, "secret/data/a", 20, one) == 10
    assert await admitted(node, "secret/data/a", 5, child) == 0
    assert await admitted(node, "secret/data/a", 5, again) == 0
    assert await admitted(node, "secret/data/a", 20, other) == 10
    assert await admitted(node, "secret/data/a", 15, "hvs.unknown") == 10
    assert await admitted(node, "secret/data/a", 5, "hvs.another") == 0
    await limited(node, "each", 10, "secret/", group_by="ip")
    assert await admitted(node, "secret/data/a", 8, one) == 8
    assert await admitted(node, "secret/data/a", 8, other) == 2


async def test_logins_of_a_role(node: Node) -> None:
    """A quota of a role limits its logins, whoever tries, and no other role's."""
    ids = {}
    for role in ("web", "other"):
        await ok(node, "POST", f"auth/approle/role/{role}", {})
        ids[role] = (await ok(node, "GET", f"auth/approle/role/{role}/role-id"))["role_id"]
    await limited(node, "logins", 4, "auth/approle", role="web")

    async def attempt(role: str) -> int:
        body = {"role_id": ids[role], "secret_id": "guessed"}
        return await status(node, "POST", "auth/approle/login", body, token="")

    codes = [await attempt("web") for _ in range(8)]
    # The gateway may give a little credit while it asks for more.
    assert codes[:4] == [400] * 4
    assert codes[-1] == 429
    assert [await attempt("other") for _ in range(6)] == [400] * 6


async def test_logins_of_a_user(node: Node) -> None:
    """A quota of a user limits his logins, in whatever case his name was written there."""
    await limited(node, "logins", 1, "auth/userpass", role="Ada")
    assert (await ok(node, "GET", "sys/quotas/rate-limit/logins"))["role"] == "ada"
    for user, last in (("ada", 429), ("eve", 400)):
        codes = [
            await status(node, "POST", f"auth/userpass/login/{user}", {"password": "guessed"}, token="")
            for _ in range(4)
        ]
        assert codes[-1] == last, user


async def test_a_limit_that_is_too_strict_can_be_put_right(node: Node) -> None:
    """Quotas, rekeys, root tokens, health and seal status are answered when nothing else is."""
    await limited(node, "all", 1)
    assert await admitted(node, "secret/data/a", 20, node.root) < 20
    assert await status(node, "GET", "secret/data/a") == 429
    for path in ("sys/rekey/init", "sys/generate-root/attempt", "sys/health", "sys/seal-status"):
        assert await status(node, "GET", path) == 200, path
    assert await status(node, "GET", "sys/quotas/rate-limit/all") == 200
    await ok(node, "DELETE", "sys/quotas/rate-limit/all")
    assert await status(node, "GET", "secret/data/a") == 404


async def test_an_interval_that_blocks(node: Node) -> None:
    """Once it was too much nothing is admitted for the block interval, although the budget fills again."""
    token = await node.token("reader", native("secrets/**"))
    await limited(node, "store", 10, "secret/", interval="1s", block_interval="10m")
    assert await admitted(node, "secret/data/a", 60, token, at_once=60) <= 20
    await asyncio.sleep(1.2)
    refused = await node.call("GET", "secret/data/a", token)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 500


async def test_a_budget_fills_again(node: Node) -> None:
    """After its time a budget is whole again."""
    token = await node.token("reader", native("secrets/**"))
    await limited(node, "store", 10, "secret/", interval="1s")
    assert await admitted(node, "secret/data/a", 12, token, at_once=12) >= 10
    await asyncio.sleep(2.5)
    assert await admitted(node, "secret/data/a", 8, token) == 8


async def test_a_tampered_quota_gives_no_rights(node: Node) -> None:
    """A quota that was edited is not in force, is told apart, and requests go on."""
    token = await node.token("reader", native("secrets/**"))
    await limited(node, "store", 1, "secret/")
    url = node.settings.database_url
    raised = f"'{MILLI * 1000}'"
    await sql(url, f"UPDATE quotas SET body = jsonb_set(body, '{{rate}}', {raised}) WHERE key LIKE '%store'")
    assert await admitted(node, "secret/data/a", 20, token) == 20
    assert await status(node, "GET", "sys/quotas/rate-limit/store") == 500
