"""What a program said, fit to be kept: without the values that it was told, on one line, bounded. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote

LONGEST = 512
"""Characters that are kept."""

_HIDDEN = "***"
_LINE = 4
"""Characters of a line of a value from which on it is looked for by itself."""


def without(text: str, values: Iterable[object]) -> str:
    """Return a text that is kept.

    Values are hidden as they are, and as JSON, URLs, base64 and hex have them; texts only, and not what was
    otherwise encoded or cut.

    Args:
        text: as it was said.
        values: what it must not hold; what is no text is looked for as JSON.
    """
    forms = {form for value in values for form in _forms(value) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, _HIDDEN)
    plain = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(plain.split())[:LONGEST]


def _forms(value: object) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, str):
        yield json.dumps(value)
        return
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="", errors="replace")
    yield base64.b64encode(raw).decode("ascii").rstrip("=")
    yield base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")
    yield raw.hex()
    yield from (line for line in value.splitlines() if len(line) >= _LINE)
