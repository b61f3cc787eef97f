"""Who watches what: one change finds its watchers without looking at anybody else.

An index from keys to sessions. Keys are what the stream of changes announces: of secrets
(``secret/prod/db``) and of authority rows (``policies/web``), in two separate indexes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)


class WatchIndex(Generic[W]):
    """Watchers by key. A key with one watcher, the common case, costs no set."""

    __slots__ = ("_by_key", "_count")

    def __init__(self) -> None:
        self._by_key: dict[str, W | set[W]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: str, watcher: W) -> None:
        """Let ``watcher`` watch ``key``; doing it again changes nothing."""
        present = self._by_key.get(key)
        if present is None:
            self._by_key[key] = watcher
        elif isinstance(present, set):
            if watcher in present:
                return
            present.add(watcher)
        elif present == watcher:
            return
        else:
            self._by_key[key] = {present, watcher}
        self._count += 1

    def remove(self, key: str, watcher: W) -> None:
        """End a watch; one that does not exist is no error."""
        present = self._by_key.get(key)
        if present is None:
            return
        if isinstance(present, set):
            if watcher not in present:
                return
            present.discard(watcher)
            if not present:
                del self._by_key[key]
        elif present == watcher:
            del self._by_key[key]
        else:
            return
        self._count -= 1

    def remove_all(self, keys: Iterable[str], watcher: W) -> None:
        """End this watcher's watches of ``keys``."""
        for key in keys:
            self.remove(key, watcher)

    def watchers(self, key: str) -> Iterator[W]:
        """Yield who watches ``key``, from a copy: watches may change meanwhile."""
        present = self._by_key.get(key)
        if isinstance(present, set):
            yield from tuple(present)
        elif present is not None:
            yield present
