"""``secrethub audit export``: the ledger as a file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from cluster.cli.audit_search import with_filters
from cluster.cli.session import Session, with_connection

_LAST = b'{"type":"end",'


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    default="jsonl",
    show_default=True,
    help="JSON Lines can be verified, CSV opens in a spreadsheet.",
)
@click.option("--output", metavar="FILE", required=True, help="Where to write it (- for standard output).")
@with_filters
@with_connection
def export(session: Session, /, form: str, output: str, **filters: str | None) -> None:
    """Write the ledger, or what the options choose of it, to a file. Needs sudo on sys/audit/export.

    The file is the owner's alone, and it is there when it is complete.
    """
    from secrethub.client.messages import Request

    query = {name: value for name, value in filters.items() if value} | {"format": form}
    request = Request(method="GET", path="sys/audit/export", query=query, accept="*/*")
    size, tail = 0, b""
    with session.client() as client, _opened(output) as file, client.chunks(request) as chunks:
        for chunk in chunks:
            file.write(chunk)
            size += len(chunk)
            tail = (tail + chunk)[-200:]
        if form == "jsonl" and _LAST not in tail:
            raise click.ClickException("the export broke off before its end")
    if output != "-":
        session.note(f"{output} has {size:,} bytes.")


@contextlib.contextmanager
def _opened(output: str) -> Iterator[IO[bytes]]:
    """Open the file; what was there stays until the new one is complete."""
    if output == "-":
        yield sys.stdout.buffer
        return
    place = Path(output)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    except OSError as exc:
        raise click.ClickException(f"{output}: {exc.strerror}") from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(place)
    except OSError as exc:
        raise click.ClickException(f"{output}: {exc.strerror or exc}") from exc
    finally:
        Path(name).unlink(missing_ok=True)
