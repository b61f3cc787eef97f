"""Which local process may read which path: rules without IO. Denied unless an entry says so.

An entry applies to a process when every condition in it holds. What a process may read is the
union of the entries that apply; together they are its *application*, which has its own slice of the
cache. Core decides on top of this with the agent's own rights. Paths match as in native policies.

An entry may name the application. Then Core decides with what is bound to that name as well, about
everything that the process reads: another entry does not widen it. A process to which entries of
two names apply is nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agent.settings import GrantSettings
from secrethub.errors import InvalidPath, InvalidRequest
from secrethub.policy.matching import NativeIndex, NativeRule
from secrethub.wire.canonical_path import check_path

OVERFLOW_ID = 65_534
"""What the kernel shows for a uid or gid that has no name here: it identifies nobody."""

PREFIX = "secrets/"
_NAMED = "application="
"""How names begin that an entry gives; those made of conditions never do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A local process as the kernel describes it. What could not be read is None and never matches.

    Attributes:
        pid: for the log.
        uid: effective user when it connected.
        gids: effective and supplementary groups.
        unit: systemd unit.
        executable: path of the program it ran when looked at.
    """

    pid: int
    uid: int
    gids: frozenset[int]
    unit: str | None = None
    executable: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """Who a process is to the agent, and what it may read.

    Attributes:
        name: stable name, of the application or made of the conditions that matched (:func:`named`).
    """

    name: str
    index: NativeIndex = field(repr=False)
    made: NativeIndex = field(repr=False)

    def may_read(self, path: str) -> bool:
        """Tell whether ``path`` (``secrets/…``) is granted."""
        return self.index.bits(path, None, listing=False).allowed != 0

    def may_have_made(self, path: str) -> bool:
        """Tell whether credentials are granted that are made at ``path``."""
        return self.made.bits(path, None, listing=False).allowed != 0


class Grants:
    """The compiled ``[[socket.allow]]`` entries."""

    def __init__(self, entries: Sequence[GrantSettings]) -> None:
        self._entries = tuple(entries)

    def application(self, peer: Peer) -> Application | None:
        """Return the application a process belongs to; None when no entry applies, or of several."""
        held = [entry for entry in self._entries if _applies(entry, peer)]
        if not held:
            return None
        names = {entry.application for entry in held if entry.application is not None}
        if len(names) > 1:
            return None
        name = _NAMED + names.pop() if names else "|".join(sorted(set(map(_name, held))))
        return Application(
            name=name,
            index=_index(path for entry in held for path in entry.paths),
            made=_index(path for entry in held for path in entry.credentials),
        )


def named(application: str) -> str | None:
    """Return the name by which Core knows an application, from :attr:`Application.name`; None for none."""
    return application.removeprefix(_NAMED) if application.startswith(_NAMED) else None


def check_pattern(pattern: str, prefix: str = PREFIX) -> None:
    """Check a path pattern: ``*`` within one segment, ``**`` for any number of segments.

    Raises:
        InvalidRequest: it does not begin with ``prefix``, is no canonical path, or has ``**``
            beside other characters.
    """
    try:
        canonical = check_path(pattern)
    except InvalidPath as exc:
        raise InvalidRequest(f"{pattern!r}: {exc}") from exc
    if not pattern.startswith(prefix):
        raise InvalidRequest(f"{pattern!r} must begin with {prefix}")
    if canonical != pattern:
        raise InvalidRequest(f"{pattern!r} must not begin or end with a slash")
    if any("**" in segment and segment != "**" for segment in pattern.split("/")):
        raise InvalidRequest(f"{pattern!r}: ** stands alone between slashes")


def _index(patterns: Iterable[str]) -> NativeIndex:
    return NativeIndex([NativeRule(policy="", path=path, denies=False, capabilities=1) for path in patterns])


def _applies(entry: GrantSettings, peer: Peer) -> bool:
    if entry.uid is None and entry.gid is None and entry.unit is None:
        return False
    return (
        (entry.uid is None or entry.uid == peer.uid)
        and (entry.gid is None or entry.gid in peer.gids)
        and (entry.unit is None or entry.unit == peer.unit)
        and (entry.executable is None or entry.executable == peer.executable)
    )


def _name(entry: GrantSettings) -> str:
    parts = {"uid": entry.uid, "gid": entry.gid, "unit": entry.unit, "executable": entry.executable}
    return ",".join(f"{key}={value}" for key, value in parts.items() if value is not None)
