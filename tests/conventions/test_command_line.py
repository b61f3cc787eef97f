"""Every command and every option of the command line is run by some test."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import click

from cluster.cli.main import cli
from tests.conventions.project import modules

_EVERYWHERE = {"--help", "--version", "--format", "--address", "--ca-file", "--ca-sha256", "--wrap-ttl"}
"""Options of all commands, which a few tests of them try for all."""


def _commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, (*path, name))


COMMANDS = dict(_commands(cli))


def _options(command: click.Command) -> set[str]:
    found = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return {name for name in found if name.startswith("--")} - _EVERYWHERE


def _words(source: str) -> set[str]:
    """Return the words in a module's strings."""
    texts = (
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {
        word.partition("=")[0] if word.startswith("--") else word for text in texts for word in text.split()
    }


def _not_run() -> dict[str, set[str]]:
    """Return the commands that no module names, and options that none names which names the command."""
    paths = [path for path in modules("tests") if "conventions" not in path.parts] + modules("cluster/demo")
    sources = [_words(path.read_text("utf-8")) for path in paths]
    missing: dict[str, set[str]] = {}
    for path, command in COMMANDS.items():
        speak_of_it = [words for words in sources if words.issuperset(path)]
        if options := _options(command).difference(*speak_of_it):
            missing[" ".join(path)] = options
        elif not speak_of_it:
            missing[" ".join(path)] = set()
    return missing


def test_tests_run_every_command_with_every_option() -> None:
    """Some test, or the demo, names each command, and each of its options together with it."""
    assert _not_run() == {}


def test_options_have_names_of_their_own() -> None:
    """No two options of a command are one parameter, which the later one would take from the other."""
    for path, command in COMMANDS.items():
        names = [parameter.name for parameter in command.params]
        assert len(set(names)) == len(names), path
