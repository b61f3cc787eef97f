"""When secrets are rotated: pure rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.rotation.schedule import Schedule

INSTANTS = st.integers(0, 20 * 365 * 86_400).map(
    lambda seconds: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
BERLIN = ZoneInfo("Europe/Berlin")


@given(every=st.integers(1, 10**7), previous=INSTANTS, away=st.timedeltas(timedelta(0), timedelta(days=900)))
def test_intervals_keep_their_beat(every: int, previous: datetime, away: timedelta) -> None:
    """However long nobody looked, the next instant is one interval ahead at most, in the same beat."""
    now = previous + away
    following = Schedule(every=every).following(previous, now)
    assert following is not None
    assert now < following <= now + timedelta(seconds=every)
    assert (following - previous) % timedelta(seconds=every) == timedelta(0)


@given(now=INSTANTS, minute=st.integers(0, 59), hour=st.integers(0, 23))
def test_cron_is_read_in_its_zone(now: datetime, minute: int, hour: int) -> None:
    """A daily instant is at most a day and an hour ahead, and on the zone's clock where that exists."""
    following = Schedule(cron=f"{minute} {hour} * * *", zone="Europe/Berlin").following(now, now)
    assert following is not None
    assert now < following <= now + timedelta(hours=25)
    local = following.astimezone(BERLIN)
    # The hour that is skipped in March is made up for when it would have begun.
    assert (local.hour, local.minute) == (hour, minute) or (hour == 2 and local.month == 3)


def test_missed_instants_are_caught_up_once() -> None:
    """After a week away there is one instant ahead, not seven behind."""
    monday = datetime(2026, 3, 2, 3, tzinfo=UTC)
    schedule = Schedule(cron="0 3 * * *")
    assert schedule.following(monday, monday + timedelta(days=7, hours=1)) == monday + timedelta(days=8)


@given(jitter=st.integers(0, 3600), part=st.floats(0, 1), instant=INSTANTS)
def test_jitter_is_bounded(jitter: int, part: float, instant: datetime) -> None:
    """A rotation is never early, and late by the jitter at most."""
    begun = Schedule(cron="0 0 * * *", jitter=jitter).late(instant, part)
    assert instant <= begun <= instant + timedelta(seconds=jitter)


def test_without_a_schedule_nothing_is_due() -> None:
    """A secret that is rotated on demand only has no next instant."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert not Schedule().automatic
    assert Schedule().following(now, now) is None


@pytest.mark.parametrize(
    "wrong",
    [
        Schedule(every=60, cron="* * * * *"),
        Schedule(every=-1),
        Schedule(every=10**12),
        Schedule(cron="* * * *"),
        Schedule(cron="* * * * * *"),
        Schedule(cron="61 * * * *"),
        Schedule(cron="0 0 30 2 *"),
        Schedule(cron="0 0 * * *", zone="Europe/Nowhere"),
        Schedule(cron="0 0 * * *", zone="../etc/passwd"),
        Schedule(jitter=5),
        Schedule(every=60, jitter=60),
        Schedule(cron="0 0 * * *", jitter=-1),
    ],
    ids=str,
)
def test_impossible_schedules_are_refused(wrong: Schedule) -> None:
    """What cannot be is refused when it is written, not when it is due."""
    with pytest.raises(InvalidRequest):
        wrong.check()


@given(text=st.text(max_size=40))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    """No expression and no zone makes the check fail in another way."""
    for schedule in (Schedule(cron=text), Schedule(cron="0 0 * * *", zone=text)):
        try:
            schedule.check()
        except InvalidRequest:
            continue
        schedule.following(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
