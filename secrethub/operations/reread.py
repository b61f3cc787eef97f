"""The same read again: a decision that still holds is not taken anew (``engines/memo.py``).

What is answered this way is read, written down and checked for changes as on the whole way
(``operations/perform.py``); whatever is not plain is left to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from secrethub.auth.networks import within
from secrethub.engines.engine import EMPTY, Answer, Context, Fence, Operation
from secrethub.engines.flat import flat_view
from secrethub.engines.memo import Granted
from secrethub.engines.runtime import Core
from secrethub.errors import Sealed
from secrethub.operations.admission import Admission
from secrethub.operations.call import Call, Token
from secrethub.operations.context import context_of
from secrethub.operations.note import request_note
from secrethub.storage.ledger import Note

_NO_FENCE = Fence(generation=0, seal_epoch=0, written=[])
"""Reads change nothing."""


class Reread:
    """A read whose like was allowed before, on its way.

    Attributes:
        call: the request.
        identity: who asks.
        route: its way.
        operation: what is asked for.
        context: of the request.
        answer: what was read, once it was.
    """

    __slots__ = ("_core", "_position", "answer", "call", "context", "identity", "operation", "route")

    def __init__(
        self, core: Core, call: Call, granted: Granted, operation: Operation, context: Context
    ) -> None:
        """Begin; nothing was looked up yet.

        Args:
            core: this process.
            call: the request.
            granted: what allowed it before.
            operation: what is asked for.
            context: of the request.
        """
        self.call = call
        self.identity = granted.identity
        self.route = granted.route
        self.operation = operation
        self.context = context
        self.answer = EMPTY
        self._core = core
        self._position = core.caches.position

    def is_at_hand(self) -> bool:
        """Answer from memory, and tell whether that could be done."""
        if self.operation.at_hand is None:
            return False
        try:
            answer = self.operation.at_hand(self.context)
        except Exception:  # noqa: BLE001 - it fails on the whole way again, and is written down there
            return False
        if answer is None:
            return False
        self.answer = answer
        return True

    def entry(self) -> Note:
        """Return what the ledger says of it; it must be durable before the answer leaves."""
        return request_note(
            self._core,
            self.call,
            kind="request",
            operation=self.operation.name,
            path=self.context.path,
            identity=self.identity,
            outcome="done",
            declared=self.operation,
            answer=self.answer.detail,
        )

    def holds(self) -> bool:
        """Tell whether the answer may leave, now that its entry is durable: the commit may have taken long.

        Raises:
            Sealed: the keys went away.
        """
        core, until = self._core, self.identity.good_until
        if not core.unsealed:
            raise Sealed
        if until is not None and until <= core.clock.now():
            return False
        return not core.caches.moved(self._position, self.context.touched)


def at_hand(core: Core, calls: Sequence[Call | None]) -> list[Reread | None]:
    """Carry out those reads for which nothing has to be waited for, neither a quota nor the database.

    Args:
        core: this process.
        calls: the requests; None for one that must go another way.

    Returns:
        For each the read with its answer, whose entry is to be written; None when the request must go
        another way.
    """
    if not core.quotas.none:
        return [None] * len(calls)
    now = core.clock.now()
    known = [
        None if call is None else _granted(core, call, flat_view(call.method, call.path), now)
        for call in calls
    ]
    return [read if read is not None and read.is_at_hand() else None for read in known]


async def reread(core: Core, call: Call, path: str, admission: Admission) -> tuple[str, Answer] | None:
    """Answer a read whose like was allowed before.

    Args:
        core: this process.
        call: the request.
        path: the one that decides.
        admission: of the request, which a quota counts once on whichever way it goes.

    Returns:
        The operation's name and its answer; None when the request must go the whole way: nothing is kept
        about it, something has changed, or it does not simply succeed.

    Raises:
        Unavailable: the entry could not be made durable.
        Sealed: the keys went away.
    """
    known = _granted(core, call, path, core.clock.now())
    if known is None:
        return None
    try:
        if not core.quotas.none:
            await admission.limit(path, known.route, known.identity)
        known.answer = await known.operation.handler(known.context, None)
    except Exception:  # noqa: BLE001 - it fails on the whole way again, and is written down there
        return None
    await core.ledger.append(known.entry())
    return (known.operation.name, known.answer) if known.holds() else None


def _granted(core: Core, call: Call, path: str, now: datetime) -> Reread | None:
    """Return a read or list that was allowed before, if nothing has changed since; wrapped ones never are."""
    if call.wrap_ttl or (call.method != "read" and call.method != "list"):  # noqa: PLR1714 - no set is made
        return None
    credential = call.credential
    if not isinstance(credential, Token) or not core.unsealed:
        return None
    known = core.memo.get(credential.digest(core), call.method, path)
    # Where a request comes from is no part of what is kept.
    if known is None or not within(call.client_address, known.identity.bound_cidrs):
        return None
    operation, until = known.route.operation, known.identity.good_until
    if operation is None or (until is not None and until <= now):
        return None
    context = context_of(
        core, call, path=path, route=known.route, identity=known.identity, fence=_NO_FENCE, now=now
    )
    return Reread(core, call, known, operation, context)
