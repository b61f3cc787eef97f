"""Values of secrets as JSON, of which no number loses a digit.

Read as floats, ``1.10`` would become ``1.1``, and a long fraction another number: what is read would not be
what was written.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from secrethub.engines.engine import Context


def _exact(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:
        return float(text)  # nearer to nothing than a decimal can be


class _Given(msgspec.Struct, frozen=True):
    data: dict[str, Any]


_VALUE = msgspec.json.Decoder(float_hook=_exact)
_GIVEN = msgspec.json.Decoder(_Given, float_hook=_exact)
_PIECES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_SORTING = msgspec.json.Encoder(decimal_format="number", order="deterministic")


def given_data(context: Context) -> dict[str, Any]:
    """Return what a request has as ``data``, once its body was found to be in order."""
    return _GIVEN.decode(context.body).data


def decoded(plain: bytes) -> Any:
    """Return a value, its fractions as decimals, for :func:`encoded`: in answers they would become texts."""
    return _VALUE.decode(plain)


def encoded(value: Any) -> bytes:
    """Return a value as it is kept."""
    return _ENCODER.encode(value)


def pieces(plain: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of a value as they are kept, for answers."""
    return _PIECES.decode(plain)


def sorted_piece(piece: msgspec.Raw) -> bytes:
    """Return a piece of a value in a form that does not hang on the order of keys."""
    return _SORTING.encode(_VALUE.decode(piece))
