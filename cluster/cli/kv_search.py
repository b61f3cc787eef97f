"""``secrethub kv`` on many secrets: found by a text, read by whom, read by nobody."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.kv_path import store_path
from cluster.cli.output import Table, text
from cluster.cli.session import Session, with_session

_MORE = "There is more: go on with --after {}"


@click.command()
@click.argument("words", metavar="TEXT")
@click.option("--below", metavar="PATH", default="", help="Only below this folder.")
@click.option("--after", metavar="PLACE", help="Where an earlier page ended.")
@click.option("--limit", type=int, metavar="N", help="Secrets at most [default: 100].")
@with_session
def search(session: Session, words: str, below: str, after: str | None, limit: int | None) -> None:
    """Find secrets by a TEXT in their paths or custom metadata."""
    _page(
        session,
        store_path("search", below, whole=True),
        {"q": words, "after": after, "limit": limit},
        ("Path", "Version", "Updated", "Found in"),
        ("current_version", "updated_time", "matched"),
    )


@click.command()
@click.argument("below", metavar="[PATH]", default="")
@click.option("--since", metavar="DURATION", default="720h", show_default=True, help="Not read for so long.")
@click.option("--after", metavar="PLACE", help="Where an earlier page ended.")
@click.option("--limit", type=int, metavar="N", help="Secrets at most [default: 100].")
@with_session
def unused(session: Session, below: str, since: str, after: str | None, limit: int | None) -> None:
    """List the secrets that nobody has read for a time. Needs sudo at their paths."""
    _page(
        session,
        store_path("unused", below, whole=True),
        {"since": since, "after": after, "limit": limit},
        ("Path", "Last read", "Created", "Updated"),
        ("last_read", "created_time", "updated_time"),
    )


@click.command()
@click.argument("path")
@click.option("--after", metavar="PLACE", help="Where an earlier page ended.")
@click.option("--limit", type=int, metavar="N", help="Reads at most [default: 100].")
@with_session
def readers(session: Session, path: str, after: str | None, limit: int | None) -> None:
    """Tell who read a secret, the newest first. Needs sudo at its path."""
    place = store_path("readers", path)
    with session.client() as client:
        reply = client.read(place, after=after, limit=limit)
    found = reply.data
    session.warn(reply.warnings)
    rows = tuple(
        tuple(text(read.get(name)) for name in ("time", "actor", "client", "version"))
        for read in found.get("reads") or ()
    )
    session.show(found, Table(columns=("Time", "Who", "From", "Version"), rows=rows))
    _say_more(session, found)


def _page(
    session: Session,
    place: str,
    query: dict[str, Any],
    columns: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    with session.client() as client:
        reply = client.read(place, **query)
    found = reply.data
    session.warn(reply.warnings)
    info: dict[str, Any] = found.get("key_info") or {}
    rows = tuple((path, *(text(about.get(name)) for name in names)) for path, about in info.items())
    session.show(found, Table(columns=columns, rows=rows))
    _say_more(session, found)


def _say_more(session: Session, found: Any) -> None:
    if session.format == "table" and found.get("next"):
        session.note(_MORE.format(found["next"]))
