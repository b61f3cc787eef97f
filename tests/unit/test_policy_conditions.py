"""Conditions of native statements: when they hold, what is unknown, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.policy.conditions import Circumstances, parse_conditions
from secrethub.policy.decision import Allowed, Denied, Question, compile_policies, decide
from secrethub.policy.document import parse_policy

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
"""A Wednesday."""
NIGHT = {"time": {"from": "22:00", "until": "06:00", "zone": "Europe/Berlin"}}


def at(text: str, zone: str = "UTC") -> Circumstances:
    """Return circumstances of an instant."""
    return Circumstances(now=datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


def holds(conditions: dict[str, Any], when: Circumstances | None, *, unknown: bool = False) -> bool:
    """Tell whether conditions hold."""
    return parse_conditions(conditions, "$").failing(when, unknown_holds=unknown) is None


@pytest.mark.parametrize(
    ("conditions", "when", "expected"),
    [
        ({"source_ip": ["10.0.0.0/8"]}, Circumstances(now=NOON, client_address="10.1.2.3"), True),
        ({"source_ip": ["10.0.0.0/8"]}, Circumstances(now=NOON, client_address="11.1.2.3"), False),
        ({"source_ip": ["10.0.0.0/8"]}, Circumstances(now=NOON, client_address="::ffff:10.1.2.3"), True),
        ({"source_ip": ["2001:db8::/32"]}, Circumstances(now=NOON, client_address="2001:db8::1"), True),
        ({"source_ip": ["2001:db8::/32"]}, Circumstances(now=NOON, client_address="10.0.0.1"), False),
        ({"source_ip": ["::ffff:10.0.0.0/104"]}, Circumstances(now=NOON, client_address="10.1.1.1"), True),
        ({"source_ip": ["::ffff:10.0.0.0/104"]}, Circumstances(now=NOON, client_address="11.1.1.1"), False),
        (NIGHT, at("2026-11-25T21:59", "Europe/Berlin"), False),
        (NIGHT, at("2026-11-25T22:00", "Europe/Berlin"), True),
        (NIGHT, at("2026-11-26T05:59", "Europe/Berlin"), True),
        (NIGHT, at("2026-11-26T06:00", "Europe/Berlin"), False),
        (NIGHT, at("2026-11-25T21:30"), True),
        (NIGHT, at("2026-07-01T20:30"), True),
        (NIGHT, at("2026-07-01T04:30"), False),
        ({"time": {"from": "09:00", "until": "24:00"}}, at("2026-11-25T23:59"), True),
        ({"time": {"from": "09:00", "until": "24:00"}}, at("2026-11-25T00:00"), False),
        ({"time": {"from": "09:00", "until": "00:00"}}, at("2026-11-25T23:59"), True),
        ({"time": {"from": "09:00", "until": "00:00"}}, at("2026-11-25T00:00"), False),
        ({"weekdays": ["wed"]}, at("2026-11-25T23:59"), True),
        ({"weekdays": ["wed"]}, at("2026-11-26T00:00"), False),
        ({**NIGHT, "weekdays": ["fri"]}, at("2026-11-28T03:00", "Europe/Berlin"), True),
        ({**NIGHT, "weekdays": ["sat"]}, at("2026-11-28T03:00", "Europe/Berlin"), False),
        ({**NIGHT, "dates": {"until": "2026-12-31"}}, at("2027-01-01T03:00", "Europe/Berlin"), True),
        ({"dates": {"from": "2026-11-25", "until": "2026-11-25"}}, at("2026-11-25T23:59"), True),
        ({"dates": {"from": "2026-11-26"}}, at("2026-11-25T23:59"), False),
        ({"dates": {"until": "2026-11-24"}}, at("2026-11-25T00:00"), False),
        ({"max_ttl": "1h"}, Circumstances(now=NOON, token_ttl=3600), True),
        ({"max_ttl": "1h"}, Circumstances(now=NOON, token_ttl=3601), False),
        ({"max_ttl": "1h"}, Circumstances(now=NOON, token_ttl=0), False),
        ({"wrapping": True}, Circumstances(now=NOON, wrap_ttl=60), True),
        ({"wrapping": True}, Circumstances(now=NOON), False),
        ({"wrapping": False}, Circumstances(now=NOON), True),
        (
            {"source_ip": ["10.0.0.0/8"], "weekdays": ["wed"]},
            Circumstances(now=NOON + timedelta(days=1), client_address="10.0.0.1"),
            False,
        ),
    ],
)
def test_when_they_hold(conditions: dict[str, Any], when: Circumstances, expected: bool) -> None:
    """Each kind holds exactly when it says, windows past midnight belong to the day they began on."""
    assert holds(conditions, when) is expected
    assert holds(conditions, when, unknown=True) is expected


@pytest.mark.parametrize(
    ("conditions", "when"),
    [
        ({"source_ip": ["0.0.0.0/0"]}, Circumstances(now=NOON)),
        ({"source_ip": ["0.0.0.0/0"]}, Circumstances(now=NOON, client_address="unix")),
        ({"max_ttl": "1h"}, Circumstances(now=NOON, token_ttl=None)),
        ({"time": {"from": "01:00", "until": "23:00", "zone": "Asia/Tokyo"}}, at("9999-12-31T20:00:00")),
        (NIGHT, at("0001-01-01T00:30:00")),
        *(
            (one, None)
            for one in (
                NIGHT,
                {"weekdays": ["wed"]},
                {"dates": {"until": "2027-01-01"}},
                {"source_ip": ["::/0"]},
                {"max_ttl": 60},
                {"wrapping": False},
            )
        ),
    ],
)
def test_what_is_unknown(conditions: dict[str, Any], when: Circumstances | None) -> None:
    """What cannot be told does not hold for whoever allows, and holds for whoever denies."""
    assert not holds(conditions, when)
    assert holds(conditions, when, unknown=True)


@pytest.mark.parametrize(
    ("conditions", "place"),
    [
        ({}, r"^\$: there is no condition"),
        ({"source_ip": []}, r"source_ip: expected 1 to 256"),
        ({"source_ip": ["10.0.0.1/8"]}, r"source_ip\[0\]: .*no network"),
        ({"source_ip": "10.0.0.0/8"}, r"source_ip: expected a list"),
        ({"time": {"from": "9:00", "until": "17:00"}}, r"time\.from: .*no time of day"),
        ({"time": {"from": "09:00"}}, r'"until" is missing'),
        ({"time": {"from": "09:00", "until": "09:00"}}, r"empty or the whole day"),
        ({"time": {"from": "24:00", "until": "09:00"}}, r"empty or the whole day"),
        ({"time": {"from": "09:00", "until": "25:00"}}, r"time\.until"),
        ({"time": {"from": "09:00", "until": "17:00", "zone": "Mars/Base"}}, r"time\.zone: .*no time zone"),
        ({"time": {"from": "09:00", "until": "17:00", "zone": "../../etc/passwd"}}, r"no time zone"),
        ({"weekdays": ["monday"]}, r"weekdays\[0\]: "),
        ({"weekdays": []}, r"at least one weekday"),
        ({"dates": {}}, r"expected \"from\""),
        ({"dates": {"from": "2026-02-30"}}, r"dates\.from: .*no date"),
        ({"dates": {"from": "20260101"}}, r"dates\.from: .*no date"),
        ({"dates": {"from": "2026-02-02", "until": "2026-02-01"}}, r"never hold"),
        ({"max_ttl": 0}, r"max_ttl"),
        ({"max_ttl": True}, r"max_ttl: expected a string"),
        ({"max_ttl": "-1h"}, r"max_ttl: .*no duration"),
        ({"wrapping": "yes"}, r"wrapping: expected true or false"),
        ({"country": "de"}, r"^\$\.country: unknown key"),
    ],
)
def test_what_is_refused(conditions: dict[str, Any], place: str) -> None:
    """What could not be honoured is refused at its place when the policy is written."""
    with pytest.raises(InvalidRequest, match=place):
        parse_conditions(conditions, "$")


def policy(*statements: tuple[str, dict[str, Any] | None]) -> Any:
    """Return compiled statements of effect and conditions, all about the same path."""
    written = [
        {"effect": effect, "paths": ["secrets/a"], "capabilities": ["read"]}
        | ({} if conditions is None else {"conditions": conditions})
        for effect, conditions in statements
    ]
    return compile_policies([parse_policy("p", {"version": "1", "statements": written})])


def question(when: Circumstances | None) -> Question:
    """Ask to read the path."""
    return Question(
        path="secret/data/a",
        acl_capability="read",
        native_path="secrets/a",
        native_capability="read",
        when=when,
    )


def test_decisions() -> None:
    """What is conditional allows, or denies, while it holds; the trace says which does not."""
    inside, outside = (Circumstances(now=NOON, client_address=a) for a in ("10.0.0.1", "192.0.2.1"))
    unknown = Circumstances(now=NOON)
    only = {"source_ip": ["10.0.0.0/8"]}
    allowing, denying = policy(("allow", only)), policy(("allow", None), ("deny", only))
    verdict = decide(question(inside), allowing)
    assert isinstance(verdict, Allowed)
    assert verdict.conditional
    for when in (outside, unknown, None):
        refused = decide(question(when), allowing)
        assert isinstance(refused, Denied)
        assert refused.reason == "no policy allows read; source_ip of policy p, rule secrets/a, does not hold"
        assert refused.trace[0].failing == "source_ip"
    assert isinstance(decide(question(outside), denying), Allowed)
    for when in (inside, unknown, None):
        assert isinstance(decide(question(when), denying), Denied)
    plain = decide(question(outside), policy(("allow", None)))
    assert isinstance(plain, Allowed)
    assert not plain.conditional


@given(
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
    st.integers(-12, 14),
)
def test_a_window_and_its_complement(start: int, end: int, now: datetime, offset: int) -> None:
    """At every instant, told in any zone, exactly one of a window and its complement holds."""
    if start == end:
        return
    texts = [f"{minute // 60:02}:{minute % 60:02}" for minute in (start, end)]
    when = Circumstances(now=now.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=offset))))
    one = holds({"time": {"from": texts[0], "until": texts[1]}}, when)
    other = holds({"time": {"from": texts[1], "until": texts[0]}}, when)
    assert one is not other
