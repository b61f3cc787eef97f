"""Which quota counts for a request, and what a process spends of a budget."""

from __future__ import annotations

from typing import Any

import pytest

from secrethub.engines.quota_scope import best
from secrethub.engines.quotas import Budget, Quota
from secrethub.errors import QuotaExceeded
from secrethub.storage.quota_levels import Share

STORE = "secret/"
LOGINS = "auth/approle/"


def quota(name: str, **given: Any) -> Quota:
    """A quota of 100 a second."""
    known: dict[str, Any] = {"path": "", "mount": "", "role": "", "rate": 100_000, "interval": 1}
    return Quota(name=name, uuid=name, block_interval=0, **{**known, "group_by": "ip", **given})


QUOTAS = (
    quota("all"),
    quota("store", path="secret/", mount="secret/"),
    quota("team", path="secret/data/team*", mount="secret/"),
    quota("team-a", path="secret/data/team/a*", mount="secret/"),
    quota("one", path="secret/data/team/a", mount="secret/"),
    quota("logins", path="auth/approle/", mount="auth/approle/"),
    quota("web", path="auth/approle/", mount="auth/approle/", role="web"),
)


@pytest.mark.parametrize(
    ("path", "mount", "role", "expected"),
    [
        ("pki/issue", "", None, "all"),
        ("secret/data/x", STORE, None, "store"),
        ("secret/data/teams", STORE, None, "team"),
        ("secret/data/team/a/b", STORE, None, "team-a"),
        ("secret/data/team/a", STORE, None, "one"),
        ("auth/approle/login", LOGINS, None, "logins"),
        ("auth/approle/login", LOGINS, "web", "web"),
        ("auth/approle/login", LOGINS, "other", "logins"),
    ],
)
def test_the_most_special_one_counts(path: str, mount: str, role: str | None, expected: str) -> None:
    """In whatever order they come."""
    for given in (QUOTAS, QUOTAS[::-1]):
        found = best(given, path, mount, role)
        assert found is not None
        assert found.name == expected
    assert best((), path, mount, role) is None


def test_whose_budget_it_is() -> None:
    """By address, a network of IPv6 being one; by identity where there is one; or everybody's."""
    by_ip, entity, mixed = (
        quota("q", group_by=kind) for kind in ("ip", "entity_then_ip", "entity_then_none")
    )
    assert by_ip.group("10.0.0.1", "e") == by_ip.group("10.0.0.1", None) != by_ip.group("10.0.0.2", None)
    assert by_ip.group("2001:db8::1", None) == by_ip.group("2001:db8::2", None)
    assert by_ip.group(None, None) != by_ip.group("10.0.0.1", None)
    assert entity.group("10.0.0.1", "e") == entity.group("10.0.0.2", "e") != entity.group("10.0.0.1", "f")
    assert entity.group("10.0.0.1", None) == by_ip.group("10.0.0.1", None)
    assert mixed.group("10.0.0.1", None) == mixed.group("10.0.0.2", None) != mixed.group(None, "e")


def test_a_little_credit_and_then_the_others_are_asked() -> None:
    """A twentieth is admitted at once, once, however long the exchange takes."""
    budget = Budget("k", quota("q"))
    assert [budget.spend(0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    asked = budget.ask()
    assert (asked.back, asked.want) == (-5, 8)
    budget.lend()
    assert budget.spend(0.0) is False
    budget.settle(Share(granted=8, level=87, blocked=0), 0.0)
    assert [budget.spend(0.0) for _ in range(8)] == [True] * 8


@pytest.mark.parametrize(("level", "left"), [(0.4, 1), (1.4, 2), (2.4, 3), (90, 3)])
def test_credit_of_an_exchange_is_paid_by_its_share(level: float, left: int) -> None:
    """What was spent while it was under way, and is not left for everybody, is not spent again."""
    budget = Budget("k", quota("q"))
    budget.lend()
    assert [budget.spend(0.0) for _ in range(2)] == [True] * 2
    budget.settle(Share(granted=3, level=level, blocked=0), 0.0)
    assert budget.share == left
    assert budget.ask().back == left - budget.owed


def test_what_is_used_up_is_refused_without_asking() -> None:
    """Until time has filled the budget again, and a debt is paid before there is credit."""
    budget = Budget("k", quota("q"))
    budget.settle(Share(granted=0, level=-2, blocked=0), 10.0)
    with pytest.raises(QuotaExceeded) as refused:
        budget.spend(10.0)
    assert refused.value.retry_after == pytest.approx(0.03)
    assert budget.spend(10.5) is False
    budget.settle(Share(granted=0, level=0.5, blocked=30), 11.0)
    with pytest.raises(QuotaExceeded) as refused:
        budget.spend(11.0)
    assert refused.value.retry_after == pytest.approx(30)


def test_shares_that_were_not_spent_are_given_back() -> None:
    """All of them, and then there is nothing left to tell."""
    budget = Budget("k", quota("q"))
    budget.settle(Share(granted=4, level=90, blocked=0), 0.0)
    assert budget.spend(0.0) is True
    assert (budget.ask().back, budget.ask().want, budget.idle) == (3, 2, False)
    budget.lend()
    budget.settle(Share(granted=0, level=93, blocked=0), 0.0)
    assert budget.idle
