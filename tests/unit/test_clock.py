"""Instants as microseconds since the epoch, exactly, there and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from secrethub.clock import from_micros, micros


def test_microseconds_since_the_epoch() -> None:
    """The epoch is 0, an instant is the same in every zone, and none is rounded."""
    assert micros(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert micros(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=1)))) == 3_600_000_000
    assert micros(datetime(2029, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == 1_893_455_999_999_999
    assert from_micros(1_893_455_999_999_999) == datetime(2029, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_there_and_back(instant: datetime) -> None:
    """Every instant comes back as it was."""
    assert from_micros(micros(instant)) == instant
