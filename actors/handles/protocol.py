"""What a caller of actors relies on, whether they are Ray's or this process's own."""

from __future__ import annotations

from typing import Any, Protocol


class Handle(Protocol):
    """One actor, by name: whoever bears the name when the call is made."""

    async def call(self, method: str, *args: object, timeout: float = 10.0) -> Any:
        """Call ``method`` and return its result.

        A call is made again when the actor died meanwhile, so every method must bear repetition.

        Args:
            method: a public method of the actor.
            args: its arguments; never key bytes outside a sealed box.
            timeout: seconds for everything, waiting for a restart included.

        Raises:
            SecretHubError: what the actor raised, as itself.
            Unavailable: the actor cannot be reached, failed, or did not answer in time.
        """
        ...


class Handles(Protocol):
    """The cluster's actors."""

    def seal_state(self) -> Handle:
        """Return SealState."""
        ...

    def key_holder(self, node: str | None = None) -> Handle:
        """Return the KeyHolder of ``node``, by default of this node."""
        ...

    def notary(self) -> Handle:
        """Return AuditNotary."""
        ...

    def session_directory(self) -> Handle:
        """Return SessionDirectory."""
        ...

    def lock(self) -> Handle:
        """Return DistributedLock."""
        ...

    async def live_nodes(self) -> list[str]:
        """Return the names of the nodes that have a KeyHolder, sorted.

        Raises:
            Unavailable: nobody can tell.
        """
        ...
