"""Frames of the agent protocol: one message as JSON, strict, bounded.

A frame that does not decode is a :class:`ProtocolViolation`; the connection is of no more use then.
What is decoded is checked against the types in :mod:`secrethub.wire.messages`, nothing is coerced.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from secrethub.errors import InvalidRequest, TooLarge
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.messages import ClientMessage, CoreMessage, Message

TO_CORE_LIMIT = 256 * 1024
"""Bytes in a frame from a client: a CSR or a thousand paths fit, a flood does not."""
FROM_CORE_LIMIT = 1024 * 1024
"""Bytes in a frame from Core: the largest secret with its envelope."""

_M = TypeVar("_M")

_encoder = msgspec.json.Encoder()
_client_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_core_decoder: msgspec.json.Decoder[CoreMessage] = msgspec.json.Decoder(CoreMessage)


class ProtocolViolation(InvalidRequest):
    """The other end sent what the protocol does not allow here.

    Attributes:
        close_code: the WebSocket close code that says so.
    """

    code = "protocol_violation"

    def __init__(self, message: str = "", close_code: int = CloseCode.PROTOCOL) -> None:
        super().__init__(message, close_code)
        self.close_code = close_code


def encode(message: Message, limit: int) -> bytes:
    """Return the frame for ``message``.

    Raises:
        TooLarge: the frame would have more than ``limit`` bytes.
    """
    frame = _encoder.encode(message)
    if len(frame) > limit:
        raise TooLarge(f"message of {len(frame)} bytes; the limit is {limit}")
    return frame


def decode_client_message(frame: bytes) -> ClientMessage:
    """Decode what a client sent.

    Raises:
        ProtocolViolation: too large, not JSON, unknown type or field, wrong type or range.
    """
    return _decode(_client_decoder, frame, TO_CORE_LIMIT)


def decode_core_message(frame: bytes) -> CoreMessage:
    """Decode what Core sent.

    Raises:
        ProtocolViolation: too large, not JSON, unknown type or field, wrong type or range.
    """
    return _decode(_core_decoder, frame, FROM_CORE_LIMIT)


def _decode(decoder: msgspec.json.Decoder[_M], frame: bytes, limit: int) -> _M:
    if len(frame) > limit:
        raise ProtocolViolation(f"frame above {limit} bytes", CloseCode.TOO_BIG)
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise ProtocolViolation(f"not a message: {_reason(exc)}") from None


def _reason(exc: Exception) -> str:
    """What is wrong, without the offending value.

    msgspec names the expected type and the field's place; an unknown tag or field it quotes, so
    such texts are shortened. ``from None`` above keeps the frame out of tracebacks.
    """
    return str(exc)[:120] if isinstance(exc, msgspec.MsgspecError) else type(exc).__name__
