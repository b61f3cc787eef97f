"""How the conversation between an agent and core ends."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a WebSocket is closed; 4000 and above are ours (RFC 6455, section 7.4.2)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL = 1011
    TRY_AGAIN_LATER = 1013
    """The gateway has no room just now. The reason is ``retry in <seconds>``."""
    PROTOCOL = 4400
    """A message that this protocol does not allow here."""
    CERTIFICATE_EXPIRED = 4401
    REVOKED = 4403
    """The agent or its certificate was revoked: do not come back with it."""
    SILENT = 4408
    """No sign of life for too long."""
    REPLACED = 4409
    """A newer connection of the same agent took over."""
    TOO_SLOW = 4429
    """The agent does not take its messages off the connection."""
    DRAINED = 4503
    """This gateway goes away: connect to another."""
