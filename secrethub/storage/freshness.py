"""What this process knows of the database's present, and how it stays true.

Caches are never the proof. The transaction that makes an audit entry durable returns the authority
generation, the seal epoch and every change that has become visible since this process last looked
(``ledger_commit``). What was decided or read before such a change is taken again before an answer
leaves. The LISTEN connection only makes that happen early.

Rules:

- Ledger commits and mutations hold ``LOCK`` shared, changes of authority hold it exclusively. So a
  commit either sees a change of authority or finished before it.
- Sequence numbers become visible out of order. A process therefore asks for what has become visible
  since its last snapshot, and is told of each change once.
- A new generation that nothing announced, or announcements that are not there any more, are a gap:
  everything cached is dropped.
- A generation or epoch lower than one seen before means that the database was put back: refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from secrethub.errors import IntegrityFailure

LOCK = 7305086391846015
CHANNEL = "secrethub_changes"
_LIMIT = 20000
_REMEMBERED = 50000
_AUTHORITATIVE = frozenset({"authority", "seal"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """A committed change.

    Attributes:
        sequence: its number, unique and roughly ascending.
        kind: ``kv``, ``authority``, ``issued`` or ``seal``. ``issued`` tells of new rows and counted
            uses, which take no right away from anybody.
        key: ``<uuid of the mount>/<path>`` for kv, ``<table>/<key>`` for authority and issued.
        version: the secret's version, the row's bucket revision, or the seal epoch.
        revision: of the secret's head; 0 for anything else.
    """

    sequence: int
    kind: str
    key: str
    version: int
    revision: int = 0


class Caches:
    """Position of this process in the stream of changes, and who wants to hear of them."""

    def __init__(self) -> None:
        self.look = asyncio.Lock()
        """Held while the database is asked and the answer applied, so that answers never overtake."""
        self.generation = 0
        self.seal_epoch = 0
        self.sealed = True
        self.cursor: str | None = None
        """The snapshot up to which everything is known; None before the first look."""
        self.position = 0
        self.authority_moves = 0
        """Counts announcements about authority rows: what was read across one is not kept."""
        self._recent: deque[Changed] = deque(maxlen=_REMEMBERED)
        self._dropped_at = 0
        self.expected = 0
        """The newest generation that this process has begun itself."""
        self._subscribers: list[Callable[[Changed], None]] = []
        self._flushes: list[Callable[[], None]] = []
        self._holes: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[Changed], None]) -> Callable[[], None]:
        """Call ``callback`` for every change as it is applied; return a function that ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def on_flush(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when everything cached must be dropped."""
        self._flushes.append(callback)

    def on_hole(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when announcements were missed for good."""
        self._holes.append(callback)

    def flush(self) -> None:
        """Drop everything cached: the stream of changes may have a hole."""
        self.position += 1
        self.authority_moves += 1
        self._dropped_at = self.position
        for callback in self._flushes:
            callback()

    def expect(self, generation: int) -> None:
        """Remember that this process has begun an authority generation: none before it is taken any more."""
        self.expected = max(self.expected, generation)

    def apply(self, rows: Iterable[Mapping[str, Any]], *, least: int = 0) -> None:
        """Take over what ``freshness()`` or ``ledger_commit()`` returned.

        Args:
            rows: as they came.
            least: :attr:`expected` when they were asked for; what was begun since they may not show.

        Raises:
            IntegrityFailure: the database is behind what this process has seen.
        """
        fresh: list[Changed] = []
        head: Mapping[str, Any] | None = None
        for row in rows:
            head = row
            if row["sequence"] is not None:
                fresh.append(
                    Changed(
                        sequence=row["sequence"],
                        kind=row["kind"],
                        key=row["key"],
                        version=row["version"],
                        revision=row["revision"],
                    )
                )
        if head is None:
            if self.cursor is None:
                return  # there is no cluster yet
            raise IntegrityFailure("cluster", "cluster", "the row is gone")
        if head["generation"] < max(self.generation, least) or head["seal_epoch"] < self.seal_epoch:
            raise IntegrityFailure("cluster", "generation", "the database is older than this process")
        unannounced = head["generation"] > self.generation and not any(
            change.kind in _AUTHORITATIVE for change in fresh
        )
        if self.cursor is not None and (head["gap"] or len(fresh) >= _LIMIT or unannounced):
            self.flush()
            for callback in self._holes:
                callback()
        self.generation = head["generation"]
        self.seal_epoch = head["seal_epoch"]
        self.sealed = head["sealed"]
        self.cursor = head["cursor"]
        for change in sorted(fresh, key=lambda c: c.sequence):
            self.position += 1
            if change.kind != "kv":
                self.authority_moves += 1
            self._recent.append(change)
            for subscriber in tuple(self._subscribers):
                try:
                    subscriber(change)
                except Exception:  # noqa: BLE001
                    # One that fails must not keep the others, or later changes, from being heard.
                    _log.exception("a change could not be announced")

    def heard(self, since: int) -> list[Changed] | None:
        """Return what was announced after ``since``, a former :attr:`position`; None where unknown."""
        count = self.position - since
        if since < self._dropped_at or count > len(self._recent):
            return None
        return [self._recent[index] for index in range(len(self._recent) - count, len(self._recent))]

    def moved(self, since: int, touched: Iterable[tuple[str, str]]) -> bool:
        """Tell whether anything that ``touched`` names, or any authority, changed after ``since``.

        Args:
            since: a former :attr:`position`.
            touched: (kind, key) pairs; a key that ends with ``/`` covers everything below it.
        """
        if since == self.position:
            return False
        if since < self._dropped_at or self.position - since > len(self._recent):
            return True
        wanted = tuple(touched)
        for index in range(len(self._recent) - (self.position - since), len(self._recent)):
            change = self._recent[index]
            if change.kind in _AUTHORITATIVE:
                return True
            for kind, key in wanted:
                if kind == change.kind and (
                    change.key == key or (key.endswith("/") and change.key.startswith(key))
                ):
                    return True
        return False
