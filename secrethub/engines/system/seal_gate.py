"""What a request must pass before it reaches SealState, which asks no policy: doors, numbers, the ledger."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator

from secrethub.audit.event import Origin
from secrethub.engines.engine import Context
from secrethub.engines.runtime import Core
from secrethub.engines.throttle import Throttle
from secrethub.errors import PermissionDenied, SecretHubError, WrongShare

_MAX_REASON = 256
"""Characters of what the ledger is told."""


def seal_throttle(core: Core) -> Throttle:
    """Return what bounds how often people without an identity can make SealState work and write."""
    found = core.engine_state.get("seal")
    if not isinstance(found, Throttle):
        found = core.engine_state["seal"] = Throttle(rate=20, burst=200, address_rate=5, address_burst=60)
    return found


def origin_of(context: Context) -> Origin:
    """Return who asks, for the seal's own stream of the ledger."""
    identity = context.identity
    return Origin(
        request_id=context.request_id,
        actor="anonymous" if identity is None else f"{identity.kind}:{identity.key[:36]}:{identity.name}",
        path=context.path,
        client=context.client_address or "",
        door=context.door,
    )


def admit_to_seal(context: Context) -> None:
    """Let a request without a token through, as often as such may come.

    Raises:
        TooManyRequests: there are too many of them.
    """
    seal_throttle(context.core).admit(context.core.clock.monotonic(), context.client_address)


async def record_refusal(context: Context, operation: str, exc: SecretHubError) -> None:
    """Write down, in the seal's own stream, what is refused before SealState hears of it.

    Raises:
        Unavailable: it could not be made durable.
    """
    reason = exc.reason if isinstance(exc, (PermissionDenied, WrongShare)) else str(exc)
    await context.core.seal.refuse(operation, f"{exc.code}: {reason}"[:_MAX_REASON], origin_of(context))


def beside_the_ingress(context: Context) -> None:
    """Refuse what concerns the seal through Ray Serve's ingress, which is no door of ours.

    Raises:
        PermissionDenied: it came that way.
    """
    if context.door == "serve":
        raise PermissionDenied("the seal is not reachable through Ray Serve's ingress")


@contextlib.asynccontextmanager
async def checks(context: Context, operation: str) -> AsyncIterator[None]:
    """Check what can be checked here; a refusal is written down."""
    admit_to_seal(context)
    try:
        beside_the_ingress(context)
        yield
    except SecretHubError as exc:
        await record_refusal(context, operation, exc)
        raise


def from_loopback(context: Context) -> bool:
    """Tell whether the request came from this machine itself."""
    address = context.client_address
    try:
        return address is not None and ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
