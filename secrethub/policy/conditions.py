"""When a native statement holds: conditions on who asks from where, at what time, and how.

::

    {"source_ip": ["10.0.0.0/8"],
     "time": {"from": "22:00", "until": "06:00", "zone": "Europe/Berlin"},
     "weekdays": ["mon", "fri"],
     "dates": {"from": "2026-01-01", "until": "2026-12-31"},
     "max_ttl": "1h",
     "wrapping": true}

All of them must hold. A time window begins at ``from`` and ends before ``until``; one that passes midnight
belongs to the day on which it began, for ``weekdays`` and ``dates`` too. These are days of the window's zone,
of UTC where there is no window. ``dates`` include both ends. ``max_ttl`` is met by a token that lives no
longer in all, from its creation to its present end: renewals count, or a short token that is renewed for ever
would meet it. ``wrapping`` is met by a request for a wrapped answer.

What cannot be told (the client's address behind an unknown proxy, the life of what is no token) does not
hold for a statement that allows, and holds for one that denies.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from secrethub.policy import strict

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_KNOWN = ("source_ip", "time", "weekdays", "dates", "max_ttl", "wrapping")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,2}")
_MOST_NETWORKS = 256
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_DAY = 24 * 60


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request besides who asks for what.

    Attributes:
        now: the instant of the decision.
        client_address: of the client, or None when unknown.
        token_ttl: seconds that the caller's token lives in all, 0 for ever; None when it has none.
        wrap_ttl: seconds that the answer shall stay wrapped; 0 when it shall not be.
        parameters: gives the request's parameters, or None when they cannot be told.
    """

    now: datetime
    client_address: str | None = None
    token_ttl: int | None = None
    wrap_ttl: int = 0
    parameters: Callable[[], Mapping[str, Any] | None] = dict


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Minutes of the day, from ``start`` until before ``end``; past midnight when ``end`` is not later."""

    start: int
    end: int
    zone: str


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions of one statement; None where there is none of a kind.

    Attributes:
        networks: the client's address is in one of them.
        window: the time of day.
        weekdays: 0 for Monday.
        first: of the dates.
        last: of the dates.
        max_ttl: seconds.
        wrapping: whether a wrapped answer must, or must not, be asked for.
    """

    networks: tuple[Network, ...] | None = None
    window: Window | None = None
    weekdays: frozenset[int] | None = None
    first: date | None = None
    last: date | None = None
    max_ttl: int | None = None
    wrapping: bool | None = None

    def failing(self, when: Circumstances | None, *, unknown_holds: bool) -> str | None:
        """Return the name of a condition that does not hold, or None when all do.

        Args:
            when: the circumstances; None when nothing is known of them.
            unknown_holds: what to take for an answer where there is none.
        """
        for name, verdict in self._verdicts(when):
            if verdict is False or (verdict is None and not unknown_holds):
                return name
        return None

    def _verdicts(self, when: Circumstances | None) -> Iterator[tuple[str, bool | None]]:
        if self.networks is not None:
            yield "source_ip", None if when is None else _within(when.client_address, self.networks)
        if self.window is not None or self.weekdays is not None or self.first or self.last:
            yield from self._timely(None if when is None else when.now)
        if self.max_ttl is not None:
            life = None if when is None else when.token_ttl
            yield "max_ttl", None if life is None else 0 < life <= self.max_ttl
        if self.wrapping is not None:
            yield "wrapping", None if when is None else (when.wrap_ttl > 0) is self.wrapping

    def _timely(self, now: datetime | None) -> list[tuple[str, bool | None]]:
        names = ["time"] * (self.window is not None) + ["weekdays"] * (self.weekdays is not None)
        names += ["dates"] * (self.first is not None or self.last is not None)
        try:
            holds = None if now is None else self._held(now)
        except OverflowError:
            holds = None  # the zone has no such time: somebody tries the ends of all time
        return [(name, None if holds is None else holds[name]) for name in names]

    def _held(self, now: datetime) -> dict[str, bool]:
        local = now.astimezone(UTC if self.window is None else ZoneInfo(self.window.zone))
        day, inside = local.date(), True
        if self.window is not None:
            start, end = self.window.start, self.window.end
            minute = local.hour * 60 + local.minute
            inside = start <= minute < end if start < end else minute >= start or minute < end
            if start >= end and minute < end:
                day -= timedelta(days=1)  # the window began yesterday
        return {
            "time": inside,
            "weekdays": self.weekdays is None or day.weekday() in self.weekdays,
            "dates": (self.first is None or day >= self.first) and (self.last is None or day <= self.last),
        }


def _within(address: str | None, networks: tuple[Network, ...]) -> bool | None:
    peer = _peer(address or "")
    return None if peer is None else any(peer in network for network in networks)


@lru_cache(maxsize=4096)
def _peer(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, of IPv4 where it is one written as IPv6; None for what is none."""
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(peer, "ipv4_mapped", None) or peer


def parse_conditions(value: Any, place: str) -> Conditions:
    """Read the conditions of a statement.

    Raises:
        InvalidRequest: unknown, empty, or impossible ones; the message names the place.
    """
    given = strict.expect_object(value, place)
    strict.expect_keys(given, place, (), _KNOWN)
    if not given:
        strict.refuse(place, "there is no condition in it; leave it out")
    first, last = _dates(given.get("dates"), f"{place}.dates") if "dates" in given else (None, None)
    return Conditions(
        networks=_networks(given["source_ip"], f"{place}.source_ip") if "source_ip" in given else None,
        window=_window(given["time"], f"{place}.time") if "time" in given else None,
        weekdays=_weekdays(given["weekdays"], f"{place}.weekdays") if "weekdays" in given else None,
        first=first,
        last=last,
        max_ttl=_max_ttl(given["max_ttl"], f"{place}.max_ttl") if "max_ttl" in given else None,
        wrapping=_wrapping(given["wrapping"], f"{place}.wrapping") if "wrapping" in given else None,
    )


def _networks(value: Any, place: str) -> tuple[Network, ...]:
    given = strict.expect_list(value, place)
    if not 1 <= len(given) <= _MOST_NETWORKS:
        strict.refuse(place, f"expected 1 to {_MOST_NETWORKS} networks")
    found = []
    for index, item in enumerate(given):
        text = strict.expect_text(item, f"{place}[{index}]")
        try:
            found.append(_unmapped(ipaddress.ip_network(text)))
        except ValueError:
            strict.refuse(
                f"{place}[{index}]",
                f"{strict.quote(text)} is no network such as 10.0.0.0/8 (no host bits set)",
            )
    return tuple(found)


def _unmapped(network: Network) -> Network:
    """Return a network; one of IPv4 addresses written as IPv6 becomes what it means, as clients' do."""
    if network.version == 6 and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _window(value: Any, place: str) -> Window:
    given = strict.expect_object(value, place)
    strict.expect_keys(given, place, ("from", "until"), ("zone",))
    start = _minute(given["from"], f"{place}.from")
    end = _minute(given["until"], f"{place}.until")
    if start in {end, _DAY}:
        strict.refuse(place, "the window is empty or the whole day: leave it out")
    zone = strict.expect_text(given.get("zone", "UTC"), f"{place}.zone")
    try:
        if _ZONE.fullmatch(zone) is None:
            raise ValueError(zone)
        ZoneInfo(zone)
    except (ValueError, LookupError, OSError):
        strict.refuse(f"{place}.zone", f"{strict.quote(zone)} is no time zone such as Europe/Berlin or UTC")
    return Window(start=start, end=end % _DAY if end < start else end, zone=zone)


def _minute(value: Any, place: str) -> int:
    text = strict.expect_text(value, place)
    if text == "24:00":
        return _DAY
    match = _CLOCK.fullmatch(text)
    if match is None:
        strict.refuse(place, f"{strict.quote(text)} is no time of day such as 06:30")
    return int(match[1]) * 60 + int(match[2])


def _weekdays(value: Any, place: str) -> frozenset[int]:
    given = strict.expect_list(value, place)
    if not given:
        strict.refuse(place, "expected at least one weekday")
    found = set()
    for index, item in enumerate(given):
        name = strict.expect_text(item, f"{place}[{index}]")
        if name not in WEEKDAYS:
            strict.refuse(f"{place}[{index}]", f"{strict.quote(name)} is none of {', '.join(WEEKDAYS)}")
        found.add(WEEKDAYS.index(name))
    return frozenset(found)


def _dates(value: Any, place: str) -> tuple[date | None, date | None]:
    given = strict.expect_object(value, place)
    strict.expect_keys(given, place, (), ("from", "until"))
    if not given:
        strict.refuse(place, 'expected "from", "until" or both')
    first, last = (
        _date(given[name], f"{place}.{name}") if name in given else None for name in ("from", "until")
    )
    if first is not None and last is not None and last < first:
        strict.refuse(place, '"until" is before "from", so it would never hold')
    return first, last


def _date(value: Any, place: str) -> date:
    text = strict.expect_text(value, place)
    try:
        if len(text) != len("2026-01-01"):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        strict.refuse(place, f"{strict.quote(text)} is no date such as 2026-01-31")


def _max_ttl(value: Any, place: str) -> int:
    seconds = strict.expect_seconds(value, place)
    if not seconds:
        strict.refuse(place, "no token lives for no time")
    return seconds


def _wrapping(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        strict.refuse(place, "expected true or false")
    return value
