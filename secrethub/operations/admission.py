"""Requests that need no token are bounded before the ledger: altogether, by address, by whom they claim.

What succeeds with a login does not count. What is refused is counted, and a summary is written later
(``serve/wiring.py``).
"""

from __future__ import annotations

from secrethub.engines.identity import Identity
from secrethub.engines.mounts import Route
from secrethub.engines.runtime import Core
from secrethub.errors import QuotaExceeded
from secrethub.operations.call import Call
from secrethub.operations.quotas import limit

_LONGEST = 300


class Admission:
    """The admission of one request."""

    def __init__(self, core: Core, call: Call) -> None:
        self._core = core
        self._call = call
        self._admitted = False
        self._claim: str | None = None
        self._counted = False
        self._exceeded: QuotaExceeded | None = None

    def ask(self, route: Route | None) -> None:
        """Count the request, once.

        Raises:
            TooManyRequests: there were too many.
        """
        if self._admitted:
            return
        now = self._core.clock.monotonic()
        self._core.throttle_public.admit(now, self._call.client_address)
        claim = self._claimed(route)
        if claim is not None:
            try:
                self._core.throttle_logins.admit(now, claim)
            except BaseException:
                self._core.throttle_public.give_back(self._call.client_address)
                raise
        self._claim, self._admitted = claim, True

    async def limit(self, path: str, route: Route | None, identity: Identity | None) -> None:
        """Count the request against the quota that applies to it, once.

        Raises:
            QuotaExceeded: there were too many.
        """
        if self._exceeded is not None:
            raise self._exceeded
        if not self._counted:
            try:
                await limit(self._core, self._call, path, route, identity)
            except QuotaExceeded as exc:
                self._exceeded = exc
                raise
            self._counted = True

    def give_back(self) -> None:
        """Take the request out of what was counted: it has turned out to be somebody."""
        self._core.throttle_public.give_back(self._call.client_address)
        if self._claim is not None:
            self._core.throttle_logins.give_back(self._claim)

    def _claimed(self, route: Route | None) -> str | None:
        """Return whom the request claims to be, told apart by mount; None when it claims nobody."""
        operation = None if route is None else route.operation
        if route is None or operation is None or operation.claims is None:
            return None
        claim = operation.claims(route.params, self._call.body, self._call.peer)
        return f"{route.mount.path}{claim}"[:_LONGEST] if claim else None
