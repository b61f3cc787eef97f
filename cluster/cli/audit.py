"""``secrethub audit``: verify the ledger, and ask it. Finding and exporting are in modules of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.audit_archive import archive
from cluster.cli.audit_export import export
from cluster.cli.audit_search import search
from cluster.cli.audit_sink import sink
from cluster.cli.output import fields
from cluster.cli.session import Session, with_session

if TYPE_CHECKING:
    from collections.abc import Callable


@click.group()
def audit() -> None:
    """Verify the audit ledger, and ask it."""


for _command in (search, export, sink, archive):
    audit.add_command(_command)


@audit.command()
@with_session
def verify(session: Session) -> None:
    """Recompute the whole ledger and name the first bad record.

    Exits with 1 when a record was changed, removed, added or moved.
    """
    from secrethub.client.messages import Request

    request = Request(method="POST", path="sys/audit/verify", body={}, accept="application/x-ndjson")
    found: Mapping[str, Any] = {}
    with session.client() as client, client.lines(request) as lines, _progress() as tell:
        for line in lines:
            if line.strip():
                found = json.loads(line)
                tell(found)
    if "ok" not in found:
        raise click.ClickException("the verification broke off before its end; look at the server's log")
    session.show(found, fields(_summary(found)))
    if not found["ok"]:
        raise click.ClickException(f"the ledger is damaged: {_where(found.get('first_bad') or {})}")


@audit.command()
@click.argument("request_id", metavar="REQUEST-ID")
@with_session
def why(session: Session, request_id: str) -> None:
    """Tell why a request was refused or failed. Its id is in its answer."""
    with session.client() as client:
        found = client.read(f"sys/audit/refusals/{request_id}").data
    shown = ("time", "actor", "operation", "path", "outcome", "reason", "client", "door")
    entries = found["entries"]
    session.show(found, *(fields({name.capitalize(): entry[name] for name in shown}) for entry in entries))


def _summary(found: Mapping[str, Any]) -> dict[str, Any]:
    verdict = "intact" if found["ok"] else "damaged"
    return {"Verdict": verdict, "Entries": found.get("entries"), "Checkpoints": found.get("checkpoints")}


def _where(bad: Mapping[str, Any]) -> str:
    return f"stream {bad.get('stream')} record {bad.get('number')}: {bad.get('reason')}"


@contextmanager
def _progress() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show how far it is, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _line: None
        return
    from rich.console import Console

    with Console(stderr=True).status("Verifying …") as status:
        yield lambda line: status.update(
            f"Verifying … {line.get('verified', 0):,} of {line.get('of', 0):,} entries"
        )
