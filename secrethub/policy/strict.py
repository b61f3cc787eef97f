"""Reading policy documents strictly: nothing is ignored, and every refusal names its place.

Places are written as JSON paths: ``$.statements[0].paths[2]``. Text that came from the document is
quoted, cut and escaped in messages, so that it cannot forge lines of a log.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from secrethub.errors import InvalidRequest

MAX_POLICY = 262_144
"""Characters of a policy's source."""

_MAX_PATH_BYTES = 4096
_MAX_SEGMENTS = 64
_MAX_QUOTED = 80
_TERM = re.compile(r"([0-9]{1,12})([smhd]|\Z)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 10_000 * 86400
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def load(source: str) -> Any:
    """Decode JSON text, refusing duplicate keys and numbers that JSON does not have.

    Raises:
        InvalidRequest: not such JSON; the message names line and column.
    """
    if len(source) > MAX_POLICY:
        raise InvalidRequest(f"the policy is longer than {MAX_POLICY} characters")
    if _UNSTORABLE.search(source):
        raise InvalidRequest("the policy has a NUL character or half of a surrogate pair")
    try:
        return json.loads(source, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as exc:
        raise InvalidRequest(
            f"the policy is not valid JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}"
        ) from None
    except RecursionError:
        raise InvalidRequest("the policy is nested too deeply") from None
    except ValueError:
        raise InvalidRequest("the policy has a number that is too long") from None


def dump(document: Mapping[str, Any]) -> str:
    """Return a document that came decoded as source text.

    Raises:
        InvalidRequest: it cannot be written as JSON, or is too long.
    """
    try:
        source = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest("the policy cannot be written as JSON") from None
    if len(source) > MAX_POLICY:
        raise InvalidRequest(f"the policy is longer than {MAX_POLICY} characters")
    return source


def member(place: str, name: str) -> str:
    """Return the JSON path of ``name`` below ``place``."""
    return f"{place}.{name}" if _NAME.fullmatch(name) else f"{place}[{quote(name)}]"


def quote(text: str) -> str:
    """Return text from a document for a message: ASCII, in double quotes, of bounded length."""
    return json.dumps(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…")


def refuse(place: str, message: str) -> NoReturn:
    """Refuse what stands at ``place``."""
    raise InvalidRequest(f"{place}: {message}")


def expect_object(value: Any, place: str) -> Mapping[str, Any]:
    """Return ``value`` if it is an object with text as keys.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(value, Mapping):
        refuse(place, f"expected an object, not {kind(value)}")
    for name in value:
        if not isinstance(name, str):
            refuse(place, "keys are strings")
    return value


def expect_list(value: Any, place: str) -> list[Any]:
    """Return ``value`` if it is a list.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(value, (list, tuple)):
        refuse(place, f"expected a list, not {kind(value)}")
    return list(value)


def expect_text(value: Any, place: str) -> str:
    """Return ``value`` if it is a string that a database can keep.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(value, str):
        refuse(place, f"expected a string, not {kind(value)}")
    if _UNSTORABLE.search(value):
        refuse(place, "the string has a NUL character or half of a surrogate pair")
    return value


def expect_seconds(value: Any, place: str) -> int:
    """Return a duration in seconds: a whole number, or a string such as ``90``, ``1h30m`` or ``7d``.

    Raises:
        InvalidRequest: it is none, or longer than ten thousand days.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    else:
        text = expect_text(value, place)
        terms = _TERM.findall(text)
        if not text or "".join(number + unit for number, unit in terms) != text:
            refuse(place, f"{quote(text)} is no duration such as 1h30m")
        seconds = sum(int(number) * _UNITS[unit] for number, unit in terms)
    if not 0 <= seconds <= _LONGEST:
        refuse(place, "the duration is out of bounds")
    return seconds


def expect_keys(
    value: Mapping[str, Any], place: str, required: Collection[str], optional: Collection[str] = ()
) -> None:
    """Check that an object has all ``required`` keys and no other than those and ``optional``.

    Raises:
        InvalidRequest: a key is unknown or missing.
    """
    for name in value:
        if name not in required and name not in optional:
            refuse(member(place, name), f"unknown key; known are {', '.join([*required, *optional])}")
    for name in required:
        if name not in value:
            refuse(place, f'"{name}" is missing')


def check_rule_path(path: str, place: str) -> list[str]:
    """Check what holds for the paths of both languages and return the segments.

    A rule that can never match, because no canonical request path looks like it, is refused: as a
    denial it would protect nothing.

    Raises:
        InvalidRequest: empty, too long, an empty or dot segment, control or hidden characters, not in
            Unicode NFC, or a template.
    """
    if not path:
        refuse(place, "the path is empty")
    if "{{" in path:
        refuse(
            place,
            "templated paths of this kind are not evaluated here, so they are not stored: "
            "there are no entities, and native documents have {{agent.id}} and {{agent.name}}",
        )
    if _CONTROL.search(path):
        refuse(place, "the path has a control or bidirectional character or a line separator")
    if _UNSTORABLE.search(path):
        refuse(place, "the path is not valid Unicode")
    if len(path.encode("utf-8")) > _MAX_PATH_BYTES:
        refuse(place, f"the path is longer than {_MAX_PATH_BYTES} bytes")
    if not unicodedata.is_normalized("NFC", path):
        refuse(place, "the path is not in Unicode normalisation form C (NFC), so it could never match")
    segments = path.split("/")
    if len(segments) > _MAX_SEGMENTS:
        refuse(place, f"the path has more than {_MAX_SEGMENTS} segments")
    for segment in segments[:-1]:
        if not segment:
            refuse(place, "the path has an empty segment, so it could never match")
    if "." in segments or ".." in segments:
        refuse(place, "the path has a segment '.' or '..', so it could never match")
    return segments


def kind(value: Any) -> str:
    """Return what sort of JSON value this is, for messages."""
    if value is None:
        return "null"
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    return type(value).__name__


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    ((int, float), "a number"),
    (str, "a string"),
    ((list, tuple), "a list"),
    (Mapping, "an object"),
)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidRequest(f"the policy has the key {quote(name)} twice in one object")
            seen.add(name)
    return found


def _constant(text: str) -> NoReturn:
    raise InvalidRequest(f"the policy is not valid JSON: {text} is not a JSON number")
