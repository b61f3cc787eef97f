"""Requests that are refused before anybody can be asked about them: counted and written down all the same."""

from __future__ import annotations

from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError, Unavailable
from secrethub.operations.note import note, shortened

_OPERATION = "unread"


async def refused_unread(
    core: Core, exc: SecretHubError, *, path: str, client_address: str | None, door: str, request_id: str
) -> None:
    """Note a request that was not understood, as far as strangers may make us write.

    Nothing was disclosed or changed, so the answer does not wait for a ledger that cannot be written.

    Args:
        core: this process.
        exc: why.
        path: printable text of what was asked for, which may have no canonical form.
        client_address: the socket's peer, or None when unknown.
        door: which listener.
        request_id: of the request.
    """
    core.metrics.requests.count(_OPERATION, exc.code)
    if not core.unsealed or isinstance(exc, Unavailable):
        return  # nothing can be signed, or the client itself went away
    try:
        core.throttle_anonymous.admit(core.clock.monotonic(), client_address)
        await note(
            core,
            operation=_OPERATION,
            path=shortened(path),
            actor="anonymous",
            outcome="refused",
            reason=shortened(f"{exc.code}: {exc}"),
            client=client_address or "",
            door=door,
            request_id=request_id,
        )
    except SecretHubError:
        return
