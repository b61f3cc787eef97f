"""Requests that need nothing of a session but who asks, and how they fail."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import TypeAlias

from actors.sessions.ports import Access, Peer
from secrethub.errors import PermissionDenied, SecretHubError, TooManyRequests
from secrethub.wire import messages as wire

_TOGETHER = 32
_SPOKEN = frozenset(
    {
        *("invalid_request", "invalid_path", "unsupported_operation", "too_large", "too_many_requests"),
        *("not_found", "conflict", "sealed", "not_initialised"),
    }
)
"""Codes of errors whose message is meant for the caller; of all others only the code is."""


Errand: TypeAlias = (
    wire.Read
    | wire.RenewCertificate
    | wire.Issue
    | wire.RenewLease
    | wire.RevokeLease
    | wire.TakeOrder
    | wire.AnswerOrder
)
"""What :func:`answered` answers."""


async def answered(access: Access, peer: Peer, message: Errand) -> wire.CoreMessage:
    """Return the answer to a request of the peer's."""
    try:
        match message:
            case wire.Read():
                return await _read(access, peer, message)
            case wire.RenewCertificate():
                return await _renew(access, peer, message)
            case wire.Issue():
                return await _issue(access, peer, message)
            case wire.RenewLease():
                seconds = await access.renew_lease(peer, message.lease_id)
                return wire.Renewed(id=message.id, lease_duration=seconds)
            case wire.RevokeLease():
                await access.revoke_lease(peer, message.lease_id)
                return wire.Noted(id=message.id)
            case wire.TakeOrder():
                return wire.Ordered(id=message.id, order=await access.take_order(peer, message.held))
            case wire.AnswerOrder():
                await access.answer_order(peer, message)
                return wire.Noted(id=message.id)
    except SecretHubError as exc:
        return refusal(message.id, exc)


async def take_back(access: Access, peer: Peer, message: wire.CoreMessage) -> None:
    """Undo what an answer that did not get away tells of. A lease that is not undone now ends by itself."""
    if isinstance(message, wire.Issued):
        with contextlib.suppress(SecretHubError):
            await access.abandon(peer, message.lease_id)


async def _read(access: Access, peer: Peer, message: wire.Read) -> wire.Result:
    secret = await access.read(peer, message.path, message.version, message.application)
    return wire.Result(
        id=message.id,
        path=message.path,
        data=dict(secret.data),
        version=secret.version,
        generation=secret.generation,
        created_time=secret.created_time,
    )


async def _issue(access: Access, peer: Peer, message: wire.Issue) -> wire.Issued:
    made = await access.issue(peer, message.path, message.application)
    return wire.Issued(
        id=message.id,
        path=message.path,
        data=dict(made.data),
        lease_id=made.lease_id,
        lease_duration=made.lease_duration,
        renewable=made.renewable,
    )


async def decide_watches(
    access: Access, peer: Peer, paths: Iterable[str], held: Collection[str], room: Callable[[], int]
) -> AsyncIterator[tuple[str, str | SecretHubError]]:
    """Decide about watches, some at a time so that their records share a commit.

    Args:
        access: decides.
        peer: who wants to watch.
        paths: what; doubles are left out.
        held: paths that are watched already and need no room.
        room: tells how many more the peer may watch; asked again after what was yielded.

    Yields:
        A path and either the key to watch or why it is not watched.
    """
    distinct = dict.fromkeys(paths)
    again = iter([path for path in distinct if path in held])
    fresh = iter([path for path in distinct if path not in held])
    while some := list(itertools.islice(again, _TOGETHER)) or list(
        itertools.islice(fresh, max(0, min(_TOGETHER, room())))
    ):
        outcomes = await asyncio.gather(*(access.watch(peer, path) for path in some), return_exceptions=True)
        for path, outcome in zip(some, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, SecretHubError):
                raise outcome
            yield path, outcome
    for path in fresh:
        yield path, TooManyRequests("too many paths are watched")


async def _renew(access: Access, peer: Peer, message: wire.RenewCertificate) -> wire.Certificate:
    issued = await access.renew(peer, message.csr)
    return wire.Certificate(id=message.id, certificate=issued.certificate, ca_chain=issued.ca_chain)


def refusal(request: int, exc: SecretHubError) -> wire.Error:
    """Return the answer that tells of ``exc``, with no more than the caller may know."""
    if isinstance(exc, PermissionDenied):
        message = "permission denied"
    elif exc.code in _SPOKEN:
        message = exc.message
    else:
        message = exc.code.replace("_", " ")
    return wire.Error(id=request, code=exc.code, message=message)
