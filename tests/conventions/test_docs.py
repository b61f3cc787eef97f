"""What the documents tell people to type is understood by the program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cluster.cli.main import cli
from tests.conventions.project import ROOT

_QUOTED = re.compile(r"(?<!`)`secrethub\s([^`]+)`")
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PROMPT = re.compile(r"(?:[\w-]+)?[$#] ")
_BEFORE = re.compile(r"sudo|env|[A-Z_]+=.*")
_END = {"|", ">", ">>", "<", "<<", "&&", ";", "&"}
_DOCUMENTS = ("README.md", "docs")


def _documents() -> Iterator[Path]:
    for name in _DOCUMENTS:
        place = ROOT / name
        yield from sorted(place.rglob("*.md")) if place.is_dir() else [place]


def _lines() -> Iterator[tuple[str, str]]:
    """Give where a command line stands, and the line; continued ones in one piece."""
    for document in _documents():
        for block in _BLOCK.findall(document.read_text("utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if (prompt := _PROMPT.match(line)) is not None:
                    yield document.name, line[prompt.end() :]


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Give the arguments of every ``secrethub`` that a command line runs, wherever in it."""
    for document, line in _lines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|><&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in (*lexer, ";"):
            if word not in _END:
                words.append(word)
                continue
            while words and _BEFORE.fullmatch(words[0]):
                words.pop(0)
            if words and words[0] == "secrethub":
                yield document, words[1:]
            words = []


def _quoted() -> Iterator[tuple[str, list[str]]]:
    """Give the arguments of every ``secrethub`` in a sentence, which may leave some to the reader."""
    for document in _documents():
        for quoted in _QUOTED.findall(_BLOCK.sub("", document.read_text("utf-8"))):
            yield document.name, shlex.split(quoted)


def _trouble(words: list[str], *, whole: bool = True) -> str:
    """Return why the command would refuse these words as wrong usage; nothing if it would not.

    Args:
        words: what follows ``secrethub``.
        whole: nothing is left out that the command demands.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="secrethub")
    while True:
        try:
            values, rest, _ = command.make_parser(context).parse_args(list(words))
        except click.UsageError as exc:
            return exc.format_message()
        if "help" in values:
            return ""
        if not isinstance(command, click.Group):
            break
        if not rest:
            return "" if command.invoke_without_command or not whole else "a command is missing"
        found = command.get_command(context, rest[0])
        if found is None:
            return f"no such command: {rest[0]}"
        context = click.Context(found, info_name=rest[0], parent=context, **found.context_settings)
        command, words = found, list(rest[1:])
    if rest and not context.allow_extra_args:
        return f"unexpected: {' '.join(map(str, rest))}"
    missing = [
        one.name
        for one in command.params
        if isinstance(one, click.Argument) and one.required and not _given(values.get(one.name or ""))
    ]
    return f"missing: {', '.join(map(str, missing))}" if missing and whole else ""


def _given(value: object) -> bool:
    """Return whether there is anything: what click marks as left out is a value that counts as true."""
    return isinstance(value, str | tuple | list) and bool(value)


def test_commands_in_documents_are_understood() -> None:
    """Every ``secrethub`` in a block of a document exists, with its options and arguments."""
    commands = list(_commands())
    assert len(commands) > 100
    wrong = {
        f"{document}: secrethub {shlex.join(words)}": trouble
        for document, words in commands
        if (trouble := _trouble(words))
    }
    assert not wrong


def test_commands_in_sentences_are_understood() -> None:
    """Every ``secrethub`` that a sentence speaks of exists, with its options."""
    commands = list(_quoted())
    assert len(commands) > 40
    wrong = {
        f"{document}: secrethub {shlex.join(words)}": trouble
        for document, words in commands
        if (trouble := _trouble(words, whole=False))
    }
    assert not wrong


@pytest.mark.parametrize(
    "line", ["kv putt prod/db a=b", "kv get --nothing prod/db", "kv get", "kv get prod/db another", "kv"]
)
def test_mistyped_commands_are_found(line: str) -> None:
    """What could not be typed is not understood."""
    assert _trouble(line.split())
