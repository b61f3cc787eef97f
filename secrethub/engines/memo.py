"""Decisions that hold until something announces otherwise, so that the same read is not decided anew.

A decision is a pure function of the token's row and its ancestors', the policies and the mounts, and of
the time only through expiry. Every change of those rows is announced (``storage/freshness.py``), and the
commit of each request's audit entry applies the announcements before the answer leaves; so what is kept
here is dropped in time. Only allowed reads and lists of tokens are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from secrethub.engines.engine import Method
from secrethub.engines.identity import Identity
from secrethub.engines.mounts import Route
from secrethub.storage.freshness import Caches, Changed

_DECISIONS = 100_000
_PATHS = 1_000


@dataclass(frozen=True, slots=True)
class Granted:
    """An allowed request: who asks and who answers."""

    identity: Identity
    route: Route


class DecisionMemo:
    """Allowed reads by token digest, method and path."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._tokens: dict[str, dict[tuple[Method, str], Granted]] = {}
        self._count = 0
        self._ancestors: set[str] = set()
        """Every token that some kept decision rests on."""
        caches.subscribe(self._announced)
        caches.on_flush(self.drop)

    def _announced(self, change: Changed) -> None:
        if change.kind == "issued":
            table, _, digest = change.key.partition("/")
            if table == "tokens" and digest in self._ancestors:
                # A renewal may also shorten a life, and with it those of what was made from it.
                self.drop()
        elif change.kind != "kv":
            self.drop()

    def drop(self) -> None:
        """Forget everything."""
        self._tokens.clear()
        self._ancestors.clear()
        self._count = 0

    def get(self, digest: str, method: Method, path: str) -> Granted | None:
        """Return a decision that holds for as long as the token does, or None."""
        known = self._tokens.get(digest)
        return None if known is None else known.get((method, path))

    def put(self, method: Method, path: str, granted: Granted, moves: int) -> None:
        """Keep a decision, unless authority moved since ``moves`` was read, before it was taken."""
        if moves != self._caches.authority_moves or granted.identity.kind != "token":
            return
        if self._count >= _DECISIONS:
            self.drop()
        known = self._tokens.setdefault(granted.identity.key, {})
        self._ancestors.update(granted.identity.lineage)
        if len(known) >= _PATHS:
            self._count -= len(known)
            known.clear()
        self._count += (method, path) not in known
        known[method, path] = granted
