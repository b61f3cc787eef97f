"""What a sink's target does, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from secrethub.sensitive import Sensitive


class TargetFailed(Exception):
    """A target did not take what it was given. ``reason`` may be shown: it holds no secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sink(msgspec.Struct, frozen=True, kw_only=True):
    """A sink as it was configured. Not shown by ``repr``.

    Attributes:
        name: in paths.
        uuid: of this sink; another one of the same name begins anew.
        type: ``file``, ``syslog`` or ``http``.
        description: for people.
        options: what its type takes, without secrets.
        authorization: value of the header, or None.
        signed: whether its places are authenticated; before there was that, they were not.
    """

    name: str
    uuid: str
    type: str
    description: str
    options: Mapping[str, str]
    authorization: Sensitive[str] | None = None
    signed: bool = True

    def __repr__(self) -> str:
        return f"Sink(name={self.name!r}, type={self.type!r})"


class Target(Protocol):
    """Takes entries. One task uses it; entries may come twice, never in another order within a stream."""

    async def check(self) -> None:
        """Find out whether it could take entries, without giving it any.

        Raises:
            TargetFailed: not now, or not at all.
        """
        ...

    async def send(self, lines: Sequence[bytes]) -> None:
        """Return when every line, a JSON object without its line end, is with the target.

        Raises:
            TargetFailed: perhaps some are, but not all.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...


def without_detail(line: bytes) -> bytes:
    """Return an entry that says how large its detail is, instead of it; its digest tells which one it is."""
    entry = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    size = len(entry["detail"])
    return msgspec.json.encode({**entry, "detail": {"left_out": f"{size} bytes"}})
