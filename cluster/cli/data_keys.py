"""``secrethub operator rotate`` and ``key-status``: the keys that values are sealed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cluster.cli.output import Table, fields
from cluster.cli.session import Session, with_session


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


def _status_table(found: Mapping[str, Any]) -> Table:
    names = {"term": "Key term", "install_time": "Installed", "encryptions": "Encryptions"}
    return fields({shown: found.get(name) for name, shown in names.items()})
