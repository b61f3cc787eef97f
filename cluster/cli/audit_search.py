"""``secrethub audit search``: who did what, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from cluster.cli.output import Table, text
from cluster.cli.session import Session, with_session

C = TypeVar("C", bound=Callable[..., Any])

_PAGE = 500
_FILTERS = (
    ("since", "TIME", "At or after: RFC 3339, or back from now such as 24h."),
    ("until", "TIME", "Before, written likewise."),
    ("actor", "ACTOR", "Who, as the ledger writes it: token:…, agent:…, anonymous."),
    ("name", "NAME", "Who, by a token's display name or an agent's name."),
    ("accessor", "ACCESSOR", "Who, by the accessor of a token that still exists."),
    ("agent", "AGENT", "Who, by an agent's id or name."),
    ("role", "ROLE", "Who, by the AppRole role it logged in with."),
    ("path", "PATH", "What; * is any text within a segment, ** any text."),
    ("operation", "NAME", "How, such as kv.read."),
    ("outcome", "OUTCOME", "done, denied, refused, failed, missing, begun, …"),
    ("kind", "KIND", "request, intent, outcome, event, …"),
    ("request-id", "ID", "One request."),
    ("client", "ADDRESS", "From where."),
)
_COLUMNS = ("time", "actor", "operation", "path", "outcome", "client", "request_id")


def with_filters(command: C) -> C:
    """Give a command the options that choose entries."""
    for name, metavar, help_ in reversed(_FILTERS):
        command = click.option(f"--{name}", metavar=metavar, help=help_)(command)
    return command


@click.command()
@with_filters
@click.option("--limit", type=click.IntRange(1), metavar="N", default=100, show_default=True)
@click.option("--after", metavar="PLACE", help="Where an earlier page ended.")
@with_session
def search(session: Session, /, limit: int, after: str | None, **filters: str | None) -> None:
    """Find entries of the ledger, the newest first. Needs sudo on sys/audit/entries."""
    from secrethub.client.messages import Request

    found: list[Mapping[str, Any]] = []
    with session.client() as client:
        while len(found) < limit:
            query = {name: value for name, value in {**filters, "after": after}.items() if value}
            query["limit"] = str(min(limit - len(found), _PAGE))
            page = client.send(Request(method="GET", path="sys/audit/entries", query=query))
            session.warn(page.warnings)
            found += page.data["entries"]
            after = page.data["next"]
            if not after:
                break
    rows = tuple(tuple(_cell(entry, name) for name in _COLUMNS) for entry in found)
    table = Table(columns=("Time", "Who", "Operation", "Path", "Outcome", "From", "Request"), rows=rows)
    session.show({"entries": found, "next": after or ""}, table)
    if session.format == "table" and after:
        session.note(f"There is more: go on with --after {after}")


def _cell(entry: Mapping[str, Any], name: str) -> str:
    shown = text(entry.get(name)) or "-"
    return f"{shown} (TAMPERED)" if name == "time" and entry.get("integrity") == "broken" else shown
