"""What the sessions of one process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.sessions.ports import Access, Observer, Peer
from actors.sessions.rules import Limits
from actors.sessions.watches import WatchIndex
from secrethub.clock import Clock
from secrethub.wire.messages import Welcome

if TYPE_CHECKING:
    from actors.sessions.session import AgentSession


@dataclass(kw_only=True, slots=True)
class Surroundings:
    """What the sessions of one process share.

    Attributes:
        agent_urls: addresses of the gateways, told to agents.
        admitted: called when Core has admitted a session's agent, before it is welcome.
        sequence: number of the last change that was announced in this process.
        turns: how often authority has changed, to notice a change during a check.
    """

    access: Access
    secrets: WatchIndex[AgentSession]
    authority: WatchIndex[AgentSession]
    observer: Observer
    clock: Clock
    limits: Limits
    gateway: str
    agent_urls: tuple[str, ...]
    admitted: Callable[[AgentSession], None]
    sequence: int = 0
    turns: int = 0

    def welcome(self, peer: Peer) -> Welcome:
        """Return what answers a peer's hello."""
        return Welcome(
            agent_id=peer.agent_id,
            server_time=self.clock.now(),
            gateway=self.gateway,
            agent_urls=self.agent_urls,
        )
