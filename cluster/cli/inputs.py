"""Reading what people and pipelines give: values, secrets and documents, never demanded on the command line.

Arguments of a process can be read by every user of the machine, so anything secret may come from a
file (``@file``), from standard input (``-``) or from a prompt that does not echo.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

LARGEST = 4 * 1024 * 1024


def read_text(source: str) -> str:
    """Return the text of a file, or of standard input for ``-``.

    Raises:
        click.ClickException: it cannot be read, is too large, or is not UTF-8.
    """
    name = "standard input" if source == "-" else source
    try:
        if source == "-":
            content = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(LARGEST + 1)
    except OSError as exc:
        raise click.ClickException(f"{name}: {exc.strerror}") from exc
    if len(content) > LARGEST:
        raise click.ClickException(f"{name} is larger than {LARGEST // 1024 // 1024} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise click.ClickException(f"{name} is not text (UTF-8); encode binary values, e.g. base64") from exc


def auth_mount(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Return where an auth method is, however it was written: a callback of options."""
    return None if value is None else value.strip("/").removeprefix("auth/")


class _Twice(Exception):
    """A key that is there twice: which of the values is meant, nobody knows."""


def read_secret(prompt: str, source: str | None = None) -> str:
    """Return one secret line: from ``source`` if given, else asked for, else from standard input.

    Raises:
        click.ClickException: there is nothing to read.
    """
    if source is None and sys.stdin.isatty():
        value = click.prompt(prompt, hide_input=True, err=True)
    else:
        value = read_text(source or "-")
    if not (value := value.strip()):
        raise click.ClickException(f"{prompt}: nothing was given")
    return str(value)


def read_object(source: str) -> dict[str, Any]:
    """Return a JSON object from a file or ``-``.

    Raises:
        click.ClickException: it is not one, or has a key twice; the message shows none of it.
    """
    name = "standard input" if source == "-" else source
    try:
        found = json.loads(read_text(source), object_pairs_hook=_once)
    except json.JSONDecodeError as exc:
        raise click.ClickException(f"{name}: not JSON (line {exc.lineno}, column {exc.colno})") from exc
    except _Twice:
        raise click.ClickException(f"{name}: an object has a key twice") from None
    if not isinstance(found, dict):
        raise click.ClickException(f"{name}: expected a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


def read_pairs(pairs: Sequence[str], *, options: bool = False) -> dict[str, str]:
    r"""Return the fields given as ``key=value``, ``key=@file`` or ``key=-``.

    A file is taken as it is; standard input loses one final newline, as in ``$(…)``. A value that
    begins with ``@`` or is ``-`` is written ``\@…`` or ``\-``.

    Args:
        pairs: as they came.
        options: they are options of ours and no secret that somebody keeps: a file loses the newline, too,
            that every editor ends one with.

    Raises:
        click.UsageError: not of this form, a key twice, or standard input twice.
    """
    fields: dict[str, str] = {}
    stdin_used = False
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.UsageError("fields are written key=value, key=@file or key=- (standard input)")
        if key in fields:
            raise click.UsageError(f"the field {key!r} is given twice")
        if value == "-":
            if stdin_used:
                raise click.UsageError("only one field can come from standard input")
            stdin_used = True
            value = read_text("-").removesuffix("\n")
        elif value.startswith("@"):
            value = read_text(value[1:])
            value = value.removesuffix("\n") if options else value
        elif value.startswith(("\\@", "\\-")):
            value = value[1:]
        fields[key] = value
    return fields
