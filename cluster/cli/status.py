"""``secrethub status``: exit code 0 unsealed, 2 sealed, 3 not initialised, 1 no answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cluster.cli.output import Table, fields
from cluster.cli.session import Session, with_session

_SEALED = 2
_NOT_INITIALISED = 3


@click.command()
@with_session
def status(session: Session) -> None:
    """Tell whether the cluster is initialised and unsealed.

    Exits with 0 when it is unsealed, 2 when sealed, 3 when not initialised. Needs no token.
    """
    with session.client(anonymous=True) as client:
        found = client.read("sys/seal-status").data
    session.show(found, seal_table(found))
    if not found.get("initialized"):
        raise click.exceptions.Exit(_NOT_INITIALISED)
    if found.get("sealed"):
        raise click.exceptions.Exit(_SEALED)


def seal_table(found: Mapping[str, Any]) -> Table:
    """Show a seal status to people."""
    shown: dict[str, Any] = {"Initialised": found.get("initialized"), "Sealed": found.get("sealed")}
    if found.get("initialized"):
        shown |= {"Shares": found.get("n"), "Threshold": found.get("t")}
        if found.get("rolled_back"):
            shown["Rolled back"] = "the database was put back; see `operator accept-restore`"
        if found.get("sealed"):
            shown["Progress"] = f"{found.get('progress', 0)} of {found.get('t')} shares"
        shown |= {"Cluster": found.get("cluster_name"), "Cluster id": found.get("cluster_id")}
    shown["Version"] = found.get("secrethub_version") or found.get("version")
    return fields(shown)
