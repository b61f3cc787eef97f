"""When a secret is rotated next: by an interval or a cron expression in a time zone, spread by jitter. Pure.

Instants of a schedule follow from one another, not from when a run ended, so a late run moves none of them.
Those that passed while nobody could rotate are caught up by one run: the next is always after the present.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from secrethub.errors import InvalidRequest

LONGEST = 10 * 366 * 24 * 3600
"""Seconds of the longest interval."""

_MAX_CRON = 200


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When to rotate. Neither interval nor cron: only when asked to.

    Attributes:
        every: seconds between two rotations; 0 for none.
        cron: five fields as in crontab(5), read in ``zone``; empty for none.
        zone: name of the IANA time zone.
        jitter: seconds by which a rotation is late at most, chosen anew each time.
    """

    every: int = 0
    cron: str = ""
    zone: str = "UTC"
    jitter: int = 0

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            InvalidRequest: what it is.
        """
        if self.every and self.cron:
            raise InvalidRequest("a schedule has either every or cron")
        if not 0 <= self.every <= LONGEST:
            raise InvalidRequest("every is a duration of at most ten years")
        zone = self._zone()
        if self.cron:
            self._check_cron(zone)
        if self.jitter and not self.automatic:
            raise InvalidRequest("jitter spreads a schedule: give every or cron")
        if not 0 <= self.jitter <= LONGEST or (self.every and self.jitter >= self.every):
            raise InvalidRequest("jitter is shorter than the interval")

    @property
    def automatic(self) -> bool:
        """Whether anything happens without being asked for."""
        return bool(self.every or self.cron)

    def following(self, previous: datetime, now: datetime) -> datetime | None:
        """Return the first instant of the schedule that is after ``now``, without jitter; None for none.

        Args:
            previous: an instant of the schedule, or its beginning: intervals are counted from it.
            now: the present; however many instants passed since ``previous``, they are left out.
        """
        if self.every:
            interval = timedelta(seconds=self.every)
            passed = max(0, (now - previous) // interval)
            return previous + (passed + 1) * interval
        if self.cron:
            try:
                local = next(CronSim(self.cron, now.astimezone(self._zone())))
            except StopIteration:
                return None
            return local.astimezone(UTC)
        return None

    def late(self, instant: datetime, part: float) -> datetime:
        """Return when to begin the rotation of an instant.

        Args:
            instant: of the schedule.
            part: random, from 0 to 1: of the jitter.
        """
        return instant + timedelta(seconds=self.jitter * part)

    def _zone(self) -> tzinfo:
        try:
            return ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise InvalidRequest("zone is the name of a time zone, such as Europe/Berlin") from exc

    def _check_cron(self, zone: tzinfo) -> None:
        wrong = "cron has five fields: minute, hour, day of month, month, day of week"
        if len(self.cron) > _MAX_CRON or len(self.cron.split()) != 5:
            raise InvalidRequest(wrong)
        try:
            next(CronSim(self.cron, datetime(2000, 1, 1, tzinfo=zone)))
        except CronSimError as exc:
            raise InvalidRequest(f"{wrong} ({exc})") from exc
        except StopIteration:
            raise InvalidRequest("cron names no day that there is") from None
