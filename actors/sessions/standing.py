"""What a session's rights rest on: rows of authority, those of the applications it asks for included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.sessions.requests import refusal
from secrethub.errors import SecretHubError, TooManyRequests
from secrethub.wire import messages as wire

if TYPE_CHECKING:
    from actors.sessions.session import AgentSession
    from actors.sessions.surroundings import Surroundings


class Standing:
    """The rows that one session watches.

    An application is kept from the first read on its behalf, so that the agent is told when what it may
    read for it changes.
    """

    __slots__ = ("_applications", "_around", "_rows", "_session")

    def __init__(self, session: AgentSession, around: Surroundings) -> None:
        self._session = session
        self._around = around
        self._rows: frozenset[str] = frozenset()
        self._applications: frozenset[str] = frozenset()

    async def check(self) -> None:
        """Look everything up again.

        Raises:
            PermissionDenied: the agent is revoked or unknown.
            SecretHubError: this cannot be told now.
        """
        access, peer = self._around.access, self._session.peer
        self.rest_on(await access.standing(peer, self._applications))

    async def speak_for(self, message: wire.Message) -> wire.CoreMessage | None:
        """Watch what the rights of the application rest on that a read is for, before it is decided.

        Returns:
            The refusal, when that cannot be done; then the application is not kept.
        """
        if not isinstance(message, wire.Read | wire.Issue) or message.application is None:
            return None
        known, turns = self._applications, self._around.turns
        if message.application in known:
            return None
        if len(known) >= wire.MAX_APPLICATIONS:  # what a session keeps is bounded
            return refusal(message.id, TooManyRequests("too many applications on one connection"))
        self._applications = known | {message.application}
        try:
            await self.check()
        except SecretHubError as exc:
            self._applications = known
            return refusal(message.id, exc)
        if turns != self._around.turns:
            self._session.change_authority()
        return None

    def rest_on(self, rows: frozenset[str]) -> None:
        """Watch exactly these rows."""
        if not self._session.ended and rows != self._rows:
            self._around.authority.remove_all(self._rows - rows, self._session)
            for row in rows - self._rows:
                self._around.authority.add(row, self._session)
            self._rows = rows

    def end(self) -> None:
        """Watch nothing."""
        self._around.authority.remove_all(self._rows, self._session)
