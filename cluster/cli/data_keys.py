"""``secrethub operator rotate``, ``key-status`` and ``reencrypt``: the keys that values are sealed with."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from cluster.cli.output import Table, fields
from cluster.cli.session import Session, with_session

_STATUS = "sys/rotate/status"
_POLL_SECONDS = 1.0


@click.command()
@with_session
def rotate(session: Session) -> None:
    """Make a new data key, which seals from now on; what older keys sealed is still read."""
    with session.client() as client:
        client.write("sys/rotate")
        found = client.read("sys/key-status").data
    session.show(found, _status_table(found))


@click.command("key-status")
@with_session
def key_status(session: Session) -> None:
    """Show the newest data key: its number, when it was made, how often it was used at most."""
    with session.client() as client:
        found = client.read("sys/key-status").data
    session.show(found, _status_table(found))


@click.command()
@click.option("--wait", is_flag=True, help="Return when nothing is left.")
@with_session
def reencrypt(session: Session, wait: bool) -> None:
    """Show how much is still sealed with older data keys. It is sealed anew in the background."""
    with session.client() as client:
        found = client.read(_STATUS).data
        while wait and found["left"]:
            if sys.stderr.isatty():
                click.echo(f"{found['left']} left", err=True)
            time.sleep(_POLL_SECONDS)
            found = client.read(_STATUS).data
    rows = tuple((row["table"], row["column"], str(row["left"])) for row in found["columns"])
    session.show(found, Table(columns=("Table", "Column", "Left"), rows=rows))


def _status_table(found: Mapping[str, Any]) -> Table:
    names = {"term": "Key term", "install_time": "Installed", "encryptions": "Encryptions"}
    return fields({shown: found.get(name) for name, shown in names.items()})
