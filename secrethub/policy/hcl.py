"""HCL, as far as policies are written in it, read into what its JSON form decodes to.

This is the first version of the language (github.com/hashicorp/hcl, branch hcl1), which Vault reads its
policies with::

    # who may read
    path "secret/data/app/*" {
      capabilities = ["read", "list"]
      allowed_parameters = { "ttl" = ["1h", "2h"], "*" = [] }
    }

Blocks of one name are collected in a list, in order: ``{"path": [{"secret/data/app/*": {…}}]}``. Text is
taken literally, ``${…}`` too, for nothing is interpolated in a policy. A key that stands twice in one
object is refused, since only one of the two could hold. Nothing here knows what a policy means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from secrethub.errors import InvalidRequest
from secrethub.policy.strict import MAX_POLICY, quote

_DEEPEST = 16
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|([0-7]{3})|(.))", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0[xX][0-9A-Fa-f]+|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\ufeff]+)
      | (?P<line>\n)
      | (?P<comment>(?:\#|//)[^\n]*|/\*.*?\*/)
      | (?P<heredoc><<-?[A-Za-z_][A-Za-z0-9_]*\r?\n)
      | (?P<text>"(?:[^"\\\n]|\\.)*")
      | (?P<number>-?[0-9][0-9A-Za-z.+-]*)
      | (?P<name>[A-Za-z_][A-Za-z0-9_.-]*)
      | (?P<mark>[{}\[\]=,])""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    at: int
    value: str = ""


def load_hcl(source: str) -> dict[str, Any]:
    """Read a document.

    Raises:
        InvalidRequest: it is not HCL; the message names line and column.
    """
    if len(source) > MAX_POLICY:
        raise InvalidRequest(f"the policy is longer than {MAX_POLICY} characters")
    return _Reader(source).members(end="end", depth=0)


class _Reader:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = self._scan()
        self._next = next(self._tokens)

    def _fail(self, at: int, message: str) -> NoReturn:
        line = self._source.count("\n", 0, at) + 1
        column = at - self._source.rfind("\n", 0, at)
        raise InvalidRequest(f"the policy is not valid HCL: {message} at line {line}, column {column}")

    def _scan(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._source):
            match = _TOKEN.match(self._source, at)
            if match is None:
                what = (
                    "a text that does not end on its line"
                    if self._source[at] == '"'
                    else "an unexpected character"
                )
                self._fail(at, f"{what} {quote(self._source[at])}")
            kind, text = str(match.lastgroup), match.group()
            start, at = at, match.end()
            if kind == "heredoc":
                value, at = self._heredoc(text, at)
                yield _Token("text", text, start, value)
            elif kind == "text":
                yield _Token("text", text, start, self._unescaped(text[1:-1], start))
            elif kind not in {"space", "line", "comment"}:
                yield _Token(kind, text, start, text)
        yield _Token("end", "the end", at)

    def _heredoc(self, opening: str, at: int) -> tuple[str, int]:
        """Return the lines up to the one that holds the marker alone, and where that ends."""
        indented, marker = opening[2] == "-", opening[2:].strip().removeprefix("-")
        closing = re.compile(rf"^[ \t]*{marker}[ \t]*\r?$", re.MULTILINE).search(self._source, at)
        if closing is None:
            self._fail(at, f"a heredoc without its end {quote(marker)}")
        lines = self._source[at : closing.start()].splitlines(keepends=True)
        if indented:
            margin = min((len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()), default=0)
            lines = [line[margin:] for line in lines]
        return "".join(lines), closing.end()

    def _unescaped(self, text: str, at: int) -> str:
        def replaced(match: re.Match[str]) -> str:
            short, long, byte, octal, plain = match.groups()
            if plain is not None:
                if plain not in _ESCAPES:
                    self._fail(at, f"an unknown escape {quote(match.group())}")
                return _ESCAPES[plain]
            code = int(octal, 8) if octal else int(short or long or byte, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                self._fail(at, f"an escape of no character {quote(match.group())}")
            return chr(code)

        return _ESCAPE.sub(replaced, text)

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _is(self, mark: str) -> bool:
        return self._next.kind == "mark" and self._next.text == mark

    def _expect(self, mark: str) -> None:
        token = self._take()
        if token.kind != "mark" or token.text != mark:
            self._fail(token.at, f"expected {quote(mark)}, not {quote(token.text)}")

    def members(self, *, end: str, depth: int) -> dict[str, Any]:
        """Read ``key = value`` and ``key "label" { … }`` up to ``end``, a mark or the end of the text."""
        if depth > _DEEPEST:
            self._fail(self._next.at, "nested too deeply")
        found: dict[str, Any] = {}
        while not (self._next.kind == "end" if end == "end" else self._is(end)):
            key = self._take()
            if key.kind not in {"name", "text"}:
                self._fail(key.at, f"expected a key, not {quote(key.text)}")
            if self._is("="):
                self._take()
                if key.value in found:
                    self._fail(key.at, f"the key {quote(key.value)} stands twice in one object")
                found[key.value] = self._value(depth)
            else:
                body = self._block(depth)
                earlier = found.setdefault(key.value, _Blocks())
                if not isinstance(earlier, _Blocks):
                    self._fail(key.at, f"the key {quote(key.value)} stands twice in one object")
                earlier.append(body)
            if self._is(","):
                self._take()
        return found

    def _block(self, depth: int) -> dict[str, Any]:
        """Read labels and a body: each label is a level of its own."""
        labels: list[str] = []
        while self._next.kind in {"text", "name"}:
            labels.append(self._take().value)
            if len(labels) > _DEEPEST:
                self._fail(self._next.at, "too many labels")
        self._expect("{")
        body = self.members(end="}", depth=depth + 1)
        self._expect("}")
        for label in reversed(labels):
            body = {label: body}
        return body

    def _value(self, depth: int) -> Any:
        token = self._take()
        if token.kind == "text":
            return token.value
        if token.kind == "number":
            return self._number(token)
        if token.kind == "name" and token.text in {"true", "false"}:
            return token.text == "true"
        if token.kind == "mark" and token.text == "{":
            body = self.members(end="}", depth=depth + 1)
            self._expect("}")
            return body
        if token.kind == "mark" and token.text == "[":
            return self._list(depth + 1)
        return self._fail(token.at, f"expected a value, not {quote(token.text)}")

    def _number(self, token: _Token) -> int | float:
        if _NUMBER.fullmatch(token.text) is None or len(token.text) > 40:
            self._fail(token.at, f"not a number: {quote(token.text)}")
        if token.text.lower().lstrip("-").startswith("0x"):
            return int(token.text, 16)
        return int(token.text) if token.text.lstrip("-").isdigit() else float(token.text)

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            self._fail(self._next.at, "nested too deeply")
        found: list[Any] = []
        while not self._is("]"):
            found.append(self._value(depth))
            if not self._is("]"):
                self._expect(",")
        self._take()
        return found


class _Blocks(list[Any]):
    """The bodies of blocks of one name; a list that was written as a value is none."""
