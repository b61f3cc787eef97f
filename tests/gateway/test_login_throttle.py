"""Logins are bounded by whom they claim to be, before the ledger, and what is left out is counted."""

from __future__ import annotations

from typing import Any

import pytest

from secrethub.engines.throttle import Throttle
from tests.gateway.approle_steps import role, secret_id
from tests.gateway.behind import sql
from tests.gateway.conftest import Node

LOGINS = "SELECT count(*) AS n FROM audit_entries WHERE operation LIKE '%.login' AND kind = 'intent'"


@pytest.fixture
def bounded(node: Node) -> Node:
    """A node that takes three failed logins of one claim, and then none for hours."""
    node.process.core.throttle_logins = Throttle(rate=1e6, burst=1e6, address_rate=1e-4, address_burst=3)
    return node


async def attempts(node: Node, path: str, body: dict[str, Any], count: int) -> list[int]:
    return [(await node.call("POST", path, "", json=body)).status_code for _ in range(count)]


async def test_a_role_has_a_bound_of_its_own(bounded: Node) -> None:
    """Failures with one RoleID use up that role's bound and nobody else's; what succeeds costs nothing."""
    role_id, other = await role(bounded), await role(bounded, "other")
    good = {"role_id": role_id, "secret_id": (await secret_id(bounded))["secret_id"]}
    fine = {"role_id": other, "secret_id": (await secret_id(bounded, "other"))["secret_id"]}
    assert await attempts(bounded, "auth/approle/login", good, 6) == [200] * 6
    before = (await sql(bounded.settings.database_url, LOGINS))[0]["n"]
    bad = {**good, "secret_id": "wrong"}
    assert await attempts(bounded, "auth/approle/login", bad, 5) == [400, 400, 400, 429, 429]
    assert await attempts(bounded, "auth/approle/login", fine, 4) == [200] * 4
    answer = await bounded.call("POST", "auth/approle/login", "", json=good)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    after = (await sql(bounded.settings.database_url, LOGINS))[0]["n"]
    assert after - before == 7
    assert bounded.process.core.throttle_logins.take_refused() == 3


async def test_spaces_around_a_role_id_claim_nobody_else(bounded: Node) -> None:
    """Whatever stands around it, it is the same RoleID, and has the same bound."""
    role_id = await role(bounded)
    codes = [
        (await attempts(bounded, "auth/approle/login", {"role_id": text, "secret_id": "wrong"}, 1))[0]
        for text in (role_id, f" {role_id}", f"{role_id}\n", f"\t{role_id} ", role_id)
    ]
    assert codes == [400, 400, 400, 429, 429]


async def test_a_user_has_one_too(bounded: Node) -> None:
    """Failures under one name, in whatever case, count together; a body that cannot be read claims nobody."""
    path = "auth/userpass/login/"
    codes = [
        (await attempts(bounded, path + name, {"password": "wrong"}, 1))[0]
        for name in ("ada", "ADA", "Ada", "ada", "bob")
    ]
    assert codes == [400, 400, 400, 429, 400]
    for content in ("[", "[" * 10_000, '{"role_id": 7}', ""):
        answer = await bounded.call("POST", "auth/approle/login", "", content=content)
        assert answer.status_code == 400
