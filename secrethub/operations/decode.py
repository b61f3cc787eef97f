"""Bodies become typed values, once, at the edge.

Vault's endpoints take what Vault's clients send: ``null`` is absent, numbers and booleans may be strings,
a list may be ``"a,b"``, unknown keys are a warning, or refused where the type forbids them. SecretHub's
own endpoints are strict.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from secrethub.engines.engine import Operation, WholeBody
from secrethub.errors import InvalidRequest
from secrethub.operations.call import Call

_DEPTH = 64
_WHOLE = re.compile(r"-?[0-9]{1,18}")
# The closing quote may be missing: then the rest is the string, and each byte is looked at once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def decode_body(operation: Operation, call: Call) -> tuple[Any, tuple[str, ...]]:
    """Return the decoded body (None when the operation takes none) and warnings.

    Raises:
        InvalidRequest: not JSON, not an object, a field that is not of its type, or an unknown one
            where that is not a warning.
    """
    kind = operation.request
    if kind is None:
        return None, ()
    raw = _object(call)
    if kind is WholeBody:
        return WholeBody(fields=raw), ()
    unknown: list[str] = []
    taken = raw if operation.strict else _taken(raw, kind, "", unknown)
    try:
        value = msgspec.convert(taken, kind, strict=True)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"invalid body: {exc}") from exc
    if not unknown:
        return value, ()
    return value, (f"unknown fields were ignored: {_shown(unknown)}"[:400],)


def _taken(
    raw: Mapping[str, Any], kind: type[msgspec.Struct], place: str, unknown: list[str]
) -> dict[str, Any]:
    """Return the fields that ``kind`` knows, coerced, nested ones too; add the others to ``unknown``.

    Raises:
        InvalidRequest: there are others and ``kind`` forbids them, or a field is not of its type.
    """
    known = _fields(kind)
    others = [place + name for name, value in raw.items() if name not in known and value is not None]
    if others and kind.__struct_config__.forbid_unknown_fields:
        raise InvalidRequest(f"unknown fields: {_shown(others)}"[:400])
    unknown += others
    return {
        name: _coerced(value, known[name], place + name, unknown)
        for name, value in raw.items()
        if name in known and value is not None
    }


def _shown(names: list[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


@lru_cache(maxsize=256)
def _fields(kind: type[msgspec.Struct]) -> dict[str, frozenset[Any]]:
    """Return what each field may be, None apart."""
    hints = get_type_hints(kind)
    return {field.encode_name: _members(hints[field.name]) for field in msgspec.structs.fields(kind)}


def _object(call: Call) -> dict[str, Any]:
    if not call.body.strip():
        return dict(call.query) if call.method in {"read", "delete", "list"} else {}
    _check_depth(call.body)
    try:
        raw = msgspec.json.decode(call.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise InvalidRequest("the body is not valid JSON") from exc
    if not isinstance(raw, dict):
        raise InvalidRequest("the body must be a JSON object")
    return raw


def _check_depth(body: bytes) -> None:
    """Refuse bodies that nest deeper than any of ours, before anything recurses into them.

    Brackets outside of strings are all that is looked at, and each round takes the innermost pairs
    away. What cannot be paired is no JSON, which the parser says better.

    Raises:
        InvalidRequest: nested too deep.
    """
    if body.count(b"[") + body.count(b"{") <= _DEPTH:
        return
    left = _STRING.sub(b"", body).translate(_BRACKETS, _OTHERS)
    for _ in range(_DEPTH):
        shorter = left.replace(b"[]", b"")
        if len(shorter) == len(left):
            return
        left = shorter
    if left:
        raise InvalidRequest("the body is nested too deep")


def _coerced(value: Any, wanted: frozenset[Any], name: str, unknown: list[str]) -> Any:
    if isinstance(value, dict):
        for kind in wanted:
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                return _taken(value, kind, name + ".", unknown)
    if isinstance(value, bool):
        if bool not in wanted and str not in wanted:
            raise InvalidRequest(f"invalid body: a boolean is no value for {name!r}")
        return value if bool in wanted else str(value).lower()
    if isinstance(value, str):
        if str in wanted or Any in wanted:
            return value
        return _from_text(value, wanted, name)
    if isinstance(value, int) and str in wanted and int not in wanted:
        return str(value)
    if isinstance(value, list) and not any(get_origin(w) in {list, tuple} for w in wanted):
        raise InvalidRequest(f"invalid body: a list is no value for {name!r}")
    return value


def _from_text(value: str, wanted: frozenset[Any], name: str) -> Any:
    if any(get_origin(w) in {list, tuple} for w in wanted):
        return [part.strip() for part in value.split(",") if part.strip()]
    if bool in wanted and value.lower() in {"true", "false", "1", "0", "t", "f"}:
        return value.lower() in {"true", "1", "t"}
    if int in wanted and _WHOLE.fullmatch(value) is not None:
        return int(value)
    raise InvalidRequest(f"invalid body: {name!r} has no valid value")


def _members(hint: Any) -> frozenset[Any]:
    if get_origin(hint) in {Union, types.UnionType}:
        return frozenset(get_args(hint)) - {type(None)}
    return frozenset({hint})
