"""``secrethub audit``: verify the ledger, and ask it. Finding and exporting are in modules of their own."""

from __future__ import annotations

import click

from cluster.cli.audit_archive import archive
from cluster.cli.audit_export import export
from cluster.cli.audit_search import search
from cluster.cli.audit_sink import sink
from cluster.cli.audit_verify import public_key, verify
from cluster.cli.output import fields
from cluster.cli.session import Session, with_session


@click.group()
def audit() -> None:
    """Verify the audit ledger, and ask it."""


for _command in (verify, public_key, search, export, sink, archive):
    audit.add_command(_command)


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
