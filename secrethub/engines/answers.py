"""Forms of answers that many operations share, for their declarations.

What an operation answers is declared as the type of its ``data`` (``Operation.response``). It is told to
those who read the description, and the tests check answers against it.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Nothing(msgspec.Struct, frozen=True):
    """No data: the status, and perhaps warnings or a lease, say it all."""


class TokenGiven(msgspec.Struct, frozen=True):
    """No data, but a token in ``auth``."""


class AnyObject(msgspec.Struct, frozen=True):
    """Whatever somebody has written there, or what another operation had answered."""


class Names(msgspec.Struct, frozen=True):
    """What every list answers: names, folders among them with a slash at the end; what is told of each."""

    keys: list[str]
    key_info: dict[str, Any] = {}
