"""The same read again: a decision that still holds is not taken anew (``engines/memo.py``).

What is answered this way is read, written down and checked for changes as on the whole way
(``operations/perform.py``); whatever is not plain is left to that.
"""

from __future__ import annotations

from secrethub.auth.networks import within
from secrethub.engines.engine import Answer, Fence
from secrethub.engines.memo import Granted
from secrethub.engines.runtime import Core
from secrethub.engines.token.known import digest_of
from secrethub.errors import Sealed, SecretHubError
from secrethub.operations.admission import Admission
from secrethub.operations.call import Call, Token
from secrethub.operations.context import context_of
from secrethub.operations.note import request_note

_NO_FENCE = Fence(generation=0, seal_epoch=0, written=[])
"""Reads change nothing."""


async def reread(core: Core, call: Call, path: str, admission: Admission) -> tuple[str, Answer] | None:
    """Answer a read whose like was allowed before.

    Args:
        core: this process.
        call: the request; only reads and lists with a token, whose answer is not wrapped, come this way.
        path: the one that decides.
        admission: of the request, which a quota counts once on whichever way it goes.

    Returns:
        The operation's name and its answer; None when the request must go the whole way: nothing is kept
        about it, something has changed, or it does not simply succeed.

    Raises:
        Unavailable: the entry could not be made durable.
        Sealed: the keys went away.
    """
    if call.wrap_ttl or (call.method != "read" and call.method != "list"):  # noqa: PLR1714 - no set is made
        return None
    known = _granted(core, call, path)
    if known is None or known.route.operation is None:
        return None
    identity, operation, caches = known.identity, known.route.operation, core.caches
    position = caches.position
    now = core.clock.now()
    if identity.good_until is not None and identity.good_until <= now:
        return None
    if not core.quotas.none:
        try:
            await admission.limit(path, known.route, identity)
        except SecretHubError:
            return None  # it is refused on the whole way
    context = context_of(
        core, call, path=path, route=known.route, identity=identity, fence=_NO_FENCE, now=now
    )
    try:
        answer = await operation.handler(context, None)
    except Exception:  # noqa: BLE001 - it fails on the whole way again, and is written down there
        return None
    await core.ledger.append(
        request_note(
            core,
            call,
            kind="request",
            operation=operation.name,
            path=path,
            identity=identity,
            outcome="done",
            declared=operation,
            answer=answer.detail,
        )
    )
    if not core.unsealed:
        raise Sealed
    # The commit may have taken long: the token may have ended meanwhile.
    ended = identity.good_until is not None and identity.good_until <= core.clock.now()
    if ended or caches.moved(position, context.touched):
        return None
    return operation.name, answer


def _granted(core: Core, call: Call, path: str) -> Granted | None:
    """Return a decision that allowed the same read before, if nothing has changed since."""
    credential = call.credential
    if not isinstance(credential, Token) or not core.unsealed:
        return None
    known = core.memo.get(digest_of(core, credential.secret.reveal()), call.method, path)
    # Where a request comes from is no part of what is kept.
    return known if known is None or within(call.client_address, known.identity.bound_cidrs) else None
