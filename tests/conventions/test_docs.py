"""What the documents tell people to type is understood by the program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from cluster.cli.main import cli
from tests.conventions.project import ROOT

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


def _trouble(words: list[str]) -> str:
    """Return why the command would refuse these words as wrong usage; nothing if it would not."""
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
            return "" if command.invoke_without_command else "a command is missing"
        found = command.get_command(context, rest[0])
        if found is None:
            return f"no such command: {rest[0]}"
        context = click.Context(found, info_name=rest[0], parent=context, **found.context_settings)
        command, words = found, list(rest[1:])
    if rest:
        return f"unexpected: {' '.join(map(str, rest))}"
    missing = [
        one.name
        for one in command.params
        if isinstance(one, click.Argument) and one.required and not values.get(one.name or "")
    ]
    return f"missing: {', '.join(map(str, missing))}" if missing else ""


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
