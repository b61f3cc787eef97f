"""Durations and instants, in and out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.wire.durations import (
    MAX_SECONDS,
    ZERO_TIME,
    format_go_duration,
    format_rfc3339,
    parse_duration,
    parse_rfc3339,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (90, 90),
        (3600.0, 3600),
        ("", 0),
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("1h30m", 5400),
        ("30m1h", 5400),
        ("768h", 2_764_800),
        ("768h0m0s", 2_764_800),
        ("1.5h", 5400),
        (".5m", 30),
        ("1.m", 60),
        ("1d", 86_400),
        ("1d12h", 129_600),
        ("2000ms", 2),
        ("1000000us", 1),
        ("1000000µs", 1),
        ("1000000μs", 1),
        ("999999999ns1ns", 1),
        (MAX_SECONDS, MAX_SECONDS),
        (str(MAX_SECONDS), MAX_SECONDS),
    ],
)
def test_durations_in(value: object, seconds: int) -> None:
    """A duration is read from each spelling that clients use."""
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        [],
        {},
        b"90",
        -1,
        -0.5,
        1.5,
        float("nan"),
        float("inf"),
        1e300,
        MAX_SECONDS + 1,
        str(MAX_SECONDS + 1),
        "9" * 64,
        "9" * 5000,
        "999999999h",
        "-1",
        "-1h",
        "+1h",
        "h",
        ".h",
        ".",
        "1.5",
        "1e3",
        "1e3s",
        "1 h",
        " 1h",
        "1h ",
        "1h\n",
        "1H",
        "1w",
        "1h30",
        "90 seconds",
        "0x10",
        "٣s",
        "１h",
        "500ms",
        "1ns",
        "0.0000000001s",
        "msm" * 21,
    ],
)
def test_durations_refused(value: object) -> None:
    """What is no duration, negative, finer than a second or too long is refused."""
    with pytest.raises(InvalidRequest):
        parse_duration(value)


@given(
    st.one_of(st.text("0123456789.hmsdnuµ-+ ", max_size=70), st.text(max_size=10), st.integers(), st.floats())
)
def test_any_duration_is_bounded_or_refused(value: Any) -> None:
    """Whatever is given, the answer is within bounds or the refusal is InvalidRequest."""
    try:
        seconds = parse_duration(value)
    except InvalidRequest:
        return
    assert 0 <= seconds <= MAX_SECONDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (60, "1m0s"),
        (90, "1m30s"),
        (1800, "30m0s"),
        (3600, "1h0m0s"),
        (2_764_800, "768h0m0s"),
    ],
)
def test_durations_out(seconds: int, text: str) -> None:
    """Durations are written as Go writes them."""
    assert format_go_duration(seconds) == text


@given(st.integers(0, MAX_SECONDS))
def test_durations_round_trip(seconds: int) -> None:
    """What is written is read as the same number of seconds."""
    assert parse_duration(format_go_duration(seconds)) == seconds


def test_negative_durations_are_not_written() -> None:
    """A negative duration has no spelling."""
    with pytest.raises(ValueError, match="negative"):
        format_go_duration(-1)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 10, 120_000, tzinfo=UTC), "2026-01-02T03:04:10.12Z"),
        (
            datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T01:04:05.000001Z",
        ),
        (None, ZERO_TIME),
    ],
)
def test_instants_out(instant: datetime | None, text: str) -> None:
    """Instants are written in UTC, without trailing zeros, and "never" as Go's zero time."""
    assert format_rfc3339(instant) == text


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123_456, tzinfo=UTC)),
        ("2026-01-02T03:04:05.1+02:00", datetime(2026, 1, 2, 1, 4, 5, 100_000, tzinfo=UTC)),
        ("2026-01-02T03:04:05-05:30", datetime(2026, 1, 2, 8, 34, 5, tzinfo=UTC)),
        (ZERO_TIME, None),
    ],
)
def test_instants_in(text: str, instant: datetime | None) -> None:
    """RFC 3339 is read with up to nine digits and any offset."""
    assert parse_rfc3339(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02t03:04:05z",
        "2026-01-02T03:04Z",
        "2026-1-2T03:04:05Z",
        "2026-02-30T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:60Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.1234567890Z",
        "2026-01-02T03:04:05+0200",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+02:60",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00Z",
        "２026-01-02T03:04:05Z",
        "2026-01-02T03:04:05Z\n",
    ],
)
def test_instants_refused(text: str) -> None:
    """What is not RFC 3339, or no instant that exists, is refused."""
    with pytest.raises(InvalidRequest):
        parse_rfc3339(text)


@given(st.datetimes(min_value=datetime(1, 1, 1, 0, 0, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_instants_round_trip(instant: datetime) -> None:
    """What is written is read as the same instant."""
    assert parse_rfc3339(format_rfc3339(instant)) == instant


def test_instants_need_a_timezone() -> None:
    """An instant without a timezone is a mistake of the caller."""
    with pytest.raises(ValueError, match="timezone"):
        format_rfc3339(datetime(2026, 1, 1))  # noqa: DTZ001
