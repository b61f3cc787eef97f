"""Renewing the certificate over the connection it protects, with a fresh key.

When is :attr:`Identity.due`; Core may say so earlier. The new identity is stored before it is used.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from agent import identity
from agent.backoff import Backoff
from agent.identity import Identity
from agent.settings import AgentKeyType
from agent.state import StateDirectory
from secrethub.clock import Clock
from secrethub.errors import InvalidRequest, SecretHubError
from secrethub.pki import keys
from secrethub.pki.csr import make_request
from secrethub.wire.messages import Certificate

LONGEST_SLEEP = 3600.0
"""Seconds between looks at the clock, which may be set or stand still while the host sleeps."""
RETRY = 300.0
"""Seconds between tries at most, beside the jitter that grows with each failure."""

_log = logging.getLogger(__name__)


class Core(Protocol):
    """What renewing needs of the connection."""

    @property
    def identity(self) -> Identity:
        """The identity in use."""
        ...

    async def renew(self, csr: str) -> Certificate:
        """Ask for a new certificate."""
        ...

    def use(self, identity: Identity) -> None:
        """Show another certificate from now on."""
        ...


class Renewal:
    """Keeps the certificate valid.

    Args:
        core: the connection.
        state: where the identity is stored.
        key_type: kind of the fresh keys.
        clock: the wall clock.
    """

    def __init__(self, core: Core, state: StateDirectory, key_type: AgentKeyType, clock: Clock) -> None:
        self._core = core
        self._state = state
        self._key_type = key_type
        self._clock = clock
        self._asked = asyncio.Event()
        self._backoff = Backoff()

    def hurry(self) -> None:
        """Renew now: Core says that it is time."""
        self._asked.set()

    async def run(self) -> None:
        """Renew whenever it is time, until cancelled."""
        while True:
            await self._wait()
            try:
                await self._renew()
                self._asked.clear()
                self._backoff.reset()
            except SecretHubError as exc:
                _log.warning("the certificate could not be renewed", extra={"error": str(exc)})
                await asyncio.sleep(min(RETRY, 10 * self._backoff.next()))

    async def _wait(self) -> None:
        while not self._asked.is_set():
            left = (self._core.identity.due - self._clock.now()).total_seconds()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(min(left, LONGEST_SLEEP)):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _renew(self) -> None:
        held = self._core.identity
        key = await asyncio.to_thread(keys.generate, self._key_type)
        answer = await self._core.renew(make_request(key))
        fresh = identity.certified(
            key, answer.certificate, answer.ca_chain, held.root_sha256, self._clock.now()
        )
        if (fresh.agent_id, fresh.cluster) != (held.agent_id, held.cluster):
            raise InvalidRequest("the new certificate names another agent")
        await asyncio.to_thread(identity.save, self._state, fresh)
        self._core.use(fresh)
        _log.info("certificate renewed", extra={"not_after": fresh.validity.not_after.isoformat()})
