"""Reading a TOML table strictly: each value by name and type, and no key left over.

Every message names the setting the way a person finds it in the file (``template[2].mode``) and
never shows a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secrethub.errors import InvalidRequest, Misconfigured
from secrethub.wire.durations import parse_duration

_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|KB|MB|GB)?")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class Table:
    """A table of settings. Values are taken out; :meth:`finish` refuses what nobody took.

    Attributes:
        name: dotted name for messages; empty at the top.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self._values = dict(values)

    def label(self, key: str) -> str:
        """Return the full name of a key."""
        return f"{self.name}.{key}" if self.name else key

    def has(self, key: str) -> bool:
        """Tell whether the key is there and was not taken yet."""
        return key in self._values

    def left(self) -> list[str]:
        """Return the keys that were not taken yet."""
        return list(self._values)

    def peek(self, key: str) -> Any:
        """Return a value without taking it."""
        return self._values.get(key)

    def wrong(self, key: str, problem: str) -> Misconfigured:
        """Return the error that says what is wrong with a key."""
        return Misconfigured(f"{self.label(key)} {problem}")

    def text(self, key: str, default: str | None = None) -> str | None:
        """Take a non-empty string."""
        value = self._values.pop(key, default)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "must be a non-empty string")
        return value

    def needed(self, key: str) -> str:
        """Take a string that must be there."""
        value = self.text(key)
        if value is None:
            raise self.wrong(key, "is missing")
        return value

    def path(self, key: str) -> Path | None:
        """Take an absolute path without ``..``."""
        value = self.text(key)
        if value is None:
            return None
        path = Path(value)
        if not path.is_absolute() or ".." in path.parts:
            raise self.wrong(key, "must be an absolute path without '..'")
        return path

    def flag(self, key: str, *, default: bool) -> bool:
        """Take a boolean; from the environment also ``true`` and ``false``."""
        value = self._values.pop(key, default)
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def whole(self, key: str, *, default: int, least: int = 0) -> int:
        """Take a whole number."""
        value = self._values.pop(key, default)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"must be a whole number of at least {least}")
        return value

    def seconds(self, key: str, *, default: int) -> int:
        """Take a duration: seconds, or text like ``5m`` or ``24h``."""
        value = self._values.pop(key, default)
        try:
            if value == "":
                raise InvalidRequest("an empty text is no duration")
            return parse_duration(value)
        except InvalidRequest as exc:
            raise self.wrong(key, "must be a duration like 30s, 5m or 24h") from exc

    def size(self, key: str, *, default: int) -> int:
        """Take a size: bytes, or text like ``64MiB``."""
        value = self._values.pop(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None or int(match[1]) == 0:
            raise self.wrong(key, "must be a size like 65536 or 64MiB")
        return int(match[1]) * _UNITS[match[2] or "B"]

    def mode(self, key: str, *, default: int) -> int:
        """Take file permissions as octal text, ``"0400"``."""
        value = self._values.pop(key, None)
        if value is None:
            return default
        if not isinstance(value, str) or re.fullmatch(r"0?[0-7]{3}", value) is None:
            raise self.wrong(key, 'must be octal permissions in quotes, like "0640"')
        return int(value, 8)

    def choice(self, key: str, *, default: str, allowed: tuple[str, ...]) -> str:
        """Take one of a few words."""
        value = self.text(key, default)
        if value not in allowed:
            raise self.wrong(key, f"must be one of {', '.join(allowed)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of non-empty strings; from the environment, one text with commas."""
        value = self._values.pop(key, [])
        if isinstance(value, str):
            value = [piece.strip() for piece in value.split(",")]
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.wrong(key, "must be a list of non-empty strings")
        return tuple(value)

    def account(self, key: str) -> str | int | None:
        """Take a user or group: its name or its number."""
        value = self._values.pop(key, None)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
        if value is None or (isinstance(value, str) and value):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1:
            return value
        raise self.wrong(key, "must be a name or a number")

    def table(self, key: str) -> Table:
        """Take an inner table; an empty one when it is not there."""
        value = self._values.pop(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a table")
        return Table(self.label(key), value)

    def tables(self, key: str) -> list[Table]:
        """Take an array of tables (``[[…]]``)."""
        value = self._values.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, f"must be written as [[{self.label(key)}]]")
        return [Table(f"{self.label(key)}[{number}]", item) for number, item in enumerate(value, 1)]

    def finish(self) -> None:
        """Refuse the table if a key is left that nobody asked for."""
        if self._values:
            raise Misconfigured(f"unknown setting {self.label(min(self._values))}")
