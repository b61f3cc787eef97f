"""Which secrets the agent wants to be told of, and what Core said to that. No IO.

A path is *settled* once Core has granted the watch, or has refused it for a reason that lasts as long
as the agent's rights do. What was refused in passing (sealed, no room, no database) is asked again.

Applications have bounded shares: one that asks for a great many paths uses up its own. The files
that the agent writes come first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from secrethub.wire.messages import Watching

FILES = "agent"
"""Whose paths come first and have no bound: the files that the agent itself writes."""
SHARE = 4_000
"""Paths that are watched for one application; three of them fit into what Core allows."""
_BATCH = 50
"""Paths in one message: the longest ones still fit into a frame."""
_LASTING = frozenset({"permission_denied", "invalid_path"})
"""Refusals that hold until the agent's rights change."""
_REFUSED = 4_096
"""Refusals remembered; what is forgotten is asked once more."""


class Watches:
    """Wanted paths by owner, and which of them are settled on the present conversation."""

    def __init__(self) -> None:
        self._wanted: dict[str, str] = {}
        self._shares: Counter[str] = Counter()
        self._granted: set[str] = set()
        self._refused: set[str] = set()

    def __len__(self) -> int:
        return len(self._wanted)

    def want(self, path: str, owner: str) -> bool:
        """Want ``path`` for an application, on this conversation and on all that follow.

        Returns:
            False when the application's share is used up.
        """
        before = self._wanted.get(path)
        if before is None and owner != FILES and self._shares[owner] >= SHARE:
            return False
        if before is None or (owner == FILES and before != FILES):
            self._forget(path)
            self._wanted[path] = owner
            self._shares[owner] += 1
        return True

    def is_granted(self, path: str) -> bool:
        """Tell whether changes of ``path`` are announced now."""
        return path in self._granted

    def is_settled(self, path: str) -> bool:
        """Tell whether Core need not be asked about ``path``."""
        return path in self._granted or path in self._refused

    def unsettled(self) -> list[str]:
        """Return the wanted paths that Core has to be asked about, those of files first."""
        paths = [path for path in self._wanted if not self.is_settled(path)]
        return sorted(paths, key=lambda path: self._wanted[path] != FILES)

    def unsettle(self) -> None:
        """Forget what Core said: a new conversation, or other rights."""
        self._granted.clear()
        self._refused.clear()

    def settle(self, answer: Watching) -> tuple[list[str], list[str]]:
        """Take over an answer of Core.

        Returns:
            What is granted now and was not before, and what is granted but no longer wanted.
        """
        fresh = [path for path in answer.paths if path in self._wanted and path not in self._granted]
        self._granted.update(fresh)
        for refusal in answer.refused:
            if refusal.code in _LASTING:
                if len(self._refused) >= _REFUSED:
                    self._refused.clear()
                self._refused.add(refusal.path)
        return fresh, [path for path in answer.paths if path not in self._wanted]

    def drop(self, paths: Iterable[str]) -> list[str]:
        """Want ``paths`` no more; return those that Core has to be told of."""
        gone = [path for path in paths if path in self._wanted]
        told = [path for path in gone if path in self._granted]
        for path in gone:
            self._forget(path)
        self._granted.difference_update(told)
        return told

    def drop_all_but(self, keep: set[str]) -> list[str]:
        """Want only what is in ``keep`` of what is wanted; return what Core has to be told of."""
        return self.drop([path for path in self._wanted if path not in keep])

    def _forget(self, path: str) -> None:
        owner = self._wanted.pop(path, None)
        if owner is not None:
            self._shares[owner] -= 1
            if not self._shares[owner]:
                del self._shares[owner]


def batches(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield ``paths`` as they fit into messages."""
    remaining = iter(paths)
    while some := tuple(islice(remaining, _BATCH)):
        yield some
