"""Operators' SQL with values put in, so that no value ends the place it stands in.

Vault's statements write the quotes themselves (``"{{name}}"``, ``'{{password}}'``), others do not; both
are understood, for what a value needs depends on where its placeholder stands:

- inside ``"…"``: double quotes are doubled; inside ``'…'``: single ones; inside ``E'…'``: backslashes too;
- bare: ``name`` becomes an identifier, every other a literal;
- inside ``$tag$ … $tag$`` (a DO block): its text is SQL again and is treated as such, and no value may
  hold the tag;
- inside a comment: refused.

The places follow PostgreSQL's lexer with ``standard_conforming_strings`` on, which connections must set.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence

from secrethub.errors import InvalidRequest

_PLACE = re.compile(r"\{\{\s*([A-Za-z_]+)\s*\}\}")
_IDENTIFIERS = frozenset({"name", "username"})
_GOES_ON = re.compile(r"(?:\s|--[^\n]*\n)*'")
"""A literal goes on in the next line with the escapes of its first part, which its quotes do not show."""
_PART = re.compile(
    r"""(?P<comment>--[^\n]*|/\*)
      | (?P<unicode>(?<![A-Za-z0-9_$\x80-\U0010ffff])[uU]&['"])
      | (?P<escaped>(?<![A-Za-z0-9_$\x80-\U0010ffff])[eE]'(?:[^'\\]|\\.|'')*')
      | (?P<literal>'(?:[^']|'')*')
      | (?P<identifier>"(?:[^"]|"")*")
      | (?P<dollar>(?<![A-Za-z0-9_$\x80-\U0010ffff])\$(?P<tag>(?:[A-Za-z_][A-Za-z0-9_]*)?)\$
            (?P<body>.*?)\$(?P=tag)\$)
      | (?P<bare>\{\{[^{}]*\}\})
      | (?P<broken>['"]|\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$)""",
    re.VERBOSE | re.DOTALL,
)


def render(statement: str, values: Mapping[str, str]) -> str:
    """Return ``statement`` with its placeholders filled in.

    Args:
        statement: SQL of the operator.
        values: by placeholder, raw.

    Raises:
        InvalidRequest: a placeholder is unknown or in a comment, a quote is not closed, or a value cannot
            stand where it should. No message has a value in it.
    """
    for value in values.values():
        if "\x00" in value:
            raise InvalidRequest("a value has a NUL character")
    return _PART.sub(lambda found: _part(found, values), statement)


def _part(found: re.Match[str], values: Mapping[str, str]) -> str:
    text, kind = found[0], found.lastgroup
    if found["dollar"] is not None:
        tag = f"${found['tag']}$"
        body = render(found["body"], values)
        # One more than was written would end the block; so would a value that completes a tag.
        if tag in body or (body + tag).index(tag) != len(body):
            raise InvalidRequest("a value cannot stand inside this dollar quote")
        return tag + body + tag
    if kind == "comment":
        if text == "/*" or _PLACE.search(text):
            raise InvalidRequest("statements have no block comments, and no placeholder in a comment")
        return text
    if kind == "unicode":
        raise InvalidRequest("statements have no U& literals and identifiers")
    if kind == "escaped" and _GOES_ON.match(found.string, found.end()):
        raise InvalidRequest("an E literal that goes on after its quote cannot be filled in")
    if kind == "broken":
        raise InvalidRequest("a quote in a statement is not closed")
    if kind == "bare":
        place = _PLACE.fullmatch(text)
        if place is None:
            raise InvalidRequest("a placeholder is {{name}}")
        value = _value(place, values)
        if place[1] in _IDENTIFIERS:
            return '"' + value.replace('"', '""') + '"'
        return "'" + value.replace("'", "''") + "'"
    return _PLACE.sub(lambda place: _quoted(_value(place, values), str(kind)), text)


def _quoted(value: str, kind: str) -> str:
    """Return a value as it stands between quotes that are there."""
    if kind == "identifier":
        return value.replace('"', '""')
    if kind == "escaped":
        value = value.replace("\\", "\\\\")
    return value.replace("'", "''")


def _value(place: re.Match[str], values: Mapping[str, str]) -> str:
    try:
        return values[place[1]]
    except KeyError:
        known = ", ".join(sorted(values))
        raise InvalidRequest(f"unknown placeholder in a statement; known are {known}") from None


def split(text: str) -> list[str]:
    """Return the statements in a text, which may have several, each with its placeholders."""
    cuts, place = [-1], 0
    for start, end in (*((found.start(), found.end()) for found in _PART.finditer(text)), (len(text), 0)):
        cuts += [place + offset for offset, letter in enumerate(text[place:start]) if letter == ";"]
        place = end
    found = [text[before + 1 : after] for before, after in itertools.pairwise((*cuts, len(text)))]
    return [statement for statement in found if statement.strip()]


def identifier(value: str) -> str:
    """Return an identifier as SQL has it. Raises InvalidRequest for a NUL."""
    return render("{{name}}", {"name": value})


def check_statements(statements: Sequence[str], names: Collection[str]) -> None:
    """Check that statements can be filled in.

    Args:
        statements: of the operator.
        names: of the placeholders that there are.

    Raises:
        InvalidRequest: what is wrong.
    """
    for statement in statements:
        render(statement, dict.fromkeys(names, "x"))
