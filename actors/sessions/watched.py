"""What one session watches, and which of it changed since its agent was told."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from actors.sessions.requests import decide_watches
from secrethub.errors import SecretHubError
from secrethub.wire import messages as wire

if TYPE_CHECKING:
    from actors.sessions.session import AgentSession
    from actors.sessions.surroundings import Surroundings


class Watched:
    """The secrets that one session watches.

    News is kept as state: of each path only the newest version waits to be told.
    """

    __slots__ = ("_around", "_changed", "_paths", "_pushed", "_session", "_text")

    def __init__(self, session: AgentSession, around: Surroundings) -> None:
        self._session = session
        self._around = around
        self._paths: dict[str, str] = {}
        self._text = 0
        """Characters of all keys and paths."""
        self._changed: dict[str, tuple[int, int]] = {}
        self._pushed: dict[str, float] = {}
        """When the agent was told of what it has not confirmed yet."""

    def __len__(self) -> int:
        return len(self._paths)

    def change(self, key: str, version: int, sequence: int) -> None:
        """Take note that the secret behind ``key`` changed."""
        path = self._paths.get(key)
        if path is not None:
            self._changed[path] = (version, sequence)

    def change_all(self, sequence: int) -> None:
        """Take note that any of them may have changed."""
        for path in self._paths.values():
            self._changed[path] = (0, sequence)

    def take(self) -> wire.Changed | None:
        """Return what the agent is to be told of now, if there is anything."""
        path = next(iter(self._changed), None)
        if path is None:
            return None
        version, sequence = self._changed.pop(path)
        self._pushed[path] = self._around.clock.monotonic()
        return wire.Changed(path=path, version=version, sequence=sequence)

    def confirm(self, path: str, version: int) -> None:
        """Take note that the agent uses a version that it was told of."""
        for key in [key for key, watched in self._paths.items() if watched == path]:
            self._around.access.confirmed(self._session.peer, key, version)
        since = self._pushed.pop(path, None)
        if since is not None:
            self._around.observer.confirmed(self._around.clock.monotonic() - since)

    async def add(self, message: wire.Watch) -> wire.Watching:
        """Watch what the agent asks for, as far as it may and there is room, and return the answer."""
        accepted: list[str] = []
        refused: list[wire.Refusal] = []
        # Only where room may run out it matters which of them are watched already.
        short = self._room() < len(message.paths)
        held = frozenset(self._paths.values()) if short else frozenset()
        access, peer = self._around.access, self._session.peer
        async for path, decision in decide_watches(access, peer, message.paths, held, self._room):
            if isinstance(decision, SecretHubError):
                refused.append(wire.Refusal(path=path, code=decision.code))
            elif not self._session.ended:
                if decision not in self._paths:
                    self._paths[decision] = path
                    self._text += len(decision) + len(path)
                    self._around.secrets.add(decision, self._session)
                accepted.append(path)
        return wire.Watching(
            id=message.id, paths=tuple(accepted), refused=tuple(refused), sequence=self._around.sequence
        )

    def remove(self, paths: Collection[str]) -> None:
        """Watch these no more."""
        for key, path in tuple(self._paths.items()):
            if path in paths:
                self._remove(key, path)

    async def check(self) -> None:
        """Decide again about each watch; those that the agent may not have any more end.

        Raises:
            SecretHubError: this cannot be told now; the watches that are left stay.
        """
        for key, path in tuple(self._paths.items()):
            if not await self._around.access.may_still_watch(self._session.peer, path):
                self._remove(key, path)

    def end(self) -> None:
        """Watch nothing: the session ended."""
        self._changed.clear()
        self._around.secrets.remove_all(self._paths, self._session)

    def _room(self) -> int:
        """Return how many more paths may be watched."""
        limits = self._around.limits
        return 0 if self._text >= limits.watched_text else limits.watches - len(self._paths)

    def _remove(self, key: str, path: str) -> None:
        self._around.secrets.remove(key, self._session)
        if self._paths.pop(key, None) is not None:
            self._around.access.unwatched(self._session.peer, key)
            self._text -= len(key) + len(path)
        self._changed.pop(path, None)
        self._pushed.pop(path, None)
