"""The envelope around every answer: always the same eight keys, null when there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The eight keys in the order in which Vault writes them."""

    request_id: str
    lease_id: str = ""
    renewable: bool = False
    lease_duration: int = 0
    data: Mapping[str, Any] | None = None
    wrap_info: Mapping[str, Any] | None = None
    warnings: Sequence[str] | None = None
    auth: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Envelope(request_id={self.request_id!r})"


_AUTH: dict[str, Any] = {
    "client_token": "",
    "accessor": "",
    "policies": (),
    "token_policies": (),
    "metadata": None,
    "lease_duration": 0,
    "renewable": False,
    "entity_id": "",
    "token_type": "service",
    "orphan": True,
    "num_uses": 0,
}
"""Every key of an ``auth`` block with the value it has when the caller gives none."""

_EIGHT = frozenset(Envelope.__struct_fields__)


def encode_envelope(
    request_id: str,
    data: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    warnings: Sequence[str] | None = None,
    lease_id: str = "",
    renewable: bool = False,
    lease_duration: int = 0,
    wrap_info: Mapping[str, Any] | None = None,
    repeat_at_top: bool = False,
) -> bytes:
    """Encode an answer as JSON.

    Args:
        request_id: UUID of the request.
        data: what the operation answers.
        auth: fields of a login or token creation; the ones left out get their neutral value, so
            that all are always there.
        warnings: sentences for the caller; an empty list is written as null.
        lease_id: lease of the answer, or empty.
        renewable: whether that lease can be renewed.
        lease_duration: seconds the lease lasts.
        wrap_info: fields of a wrapped answer.
        repeat_at_top: repeat the keys of ``data`` beside the eight, as reads of ``sys/`` do for old
            clients; the eight themselves are never overwritten.

    Returns:
        The JSON text as UTF-8.

    Raises:
        ValueError: ``auth`` has a key that the block does not know.
        TypeError: a value that JSON cannot express.
    """
    envelope = Envelope(
        request_id=request_id,
        lease_id=lease_id,
        renewable=renewable,
        lease_duration=lease_duration,
        data=data,
        wrap_info=wrap_info,
        warnings=warnings or None,
        auth=None if auth is None else _auth_block(auth),
    )
    if not (repeat_at_top and data):
        return _ENCODER.encode(envelope)
    repeated = {key: value for key, value in data.items() if key not in _EIGHT}
    return _ENCODER.encode(msgspec.structs.asdict(envelope) | repeated)


def _auth_block(auth: Mapping[str, Any]) -> dict[str, Any]:
    block = _AUTH | dict(auth)
    if len(block) != len(_AUTH):
        raise ValueError(f"an auth block has no key {sorted(block.keys() - _AUTH.keys())}")
    return block


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
