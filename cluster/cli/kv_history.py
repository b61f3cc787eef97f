"""``secrethub kv`` on versions: brought back, destroyed, listed, compared, rolled back to."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.kv_path import secret_path, store_path, version_numbers
from cluster.cli.output import Table, text, visible
from cluster.cli.session import Session, with_session

_NO_VERSION = {"not_found": "or such a version has no value: `secrethub kv history` shows which there are"}


@click.command()
@click.argument("path")
@click.option("--versions", metavar="N,…", required=True, help="The versions to bring back.")
@with_session
def undelete(session: Session, path: str, versions: str) -> None:
    """Bring deleted versions of a secret back."""
    _change(session, "undelete", path, versions)
    session.say(f"Versions {versions} of {visible(path)} are back, as far as they were not destroyed.")


@click.command()
@click.argument("path")
@click.option("--versions", metavar="N,…", required=True, help="The versions to destroy.")
@with_session
def destroy(session: Session, path: str, versions: str) -> None:
    """Remove versions of a secret for good. Nothing brings them back."""
    _change(session, "destroy", path, versions)
    session.say(f"Versions {versions} of {visible(path)} are destroyed, as far as they were there.")


def _change(session: Session, verb: str, path: str, versions: str) -> None:
    place, numbers = store_path(verb, path), version_numbers(versions)
    with session.client() as client:
        client.write(place, {"versions": numbers})


@click.command()
@click.argument("path")
@with_session
def history(session: Session, path: str) -> None:
    """List the versions of a secret that are kept, the newest first."""
    place = store_path("metadata", path)
    with session.client() as client:
        found = client.read(place).data
    versions: dict[str, Any] = found.get("versions") or {}
    rows = tuple(
        (
            number,
            text(one.get("created_time")),
            text(one.get("deletion_time") or None),
            text(one.get("destroyed")),
        )
        for number, one in sorted(versions.items(), key=lambda item: -int(item[0]))
    )
    shown = {"current_version": found.get("current_version"), "versions": versions}
    session.show(shown, Table(columns=("Version", "Created", "Deleted", "Destroyed"), rows=rows))


@click.command()
@click.argument("path")
@click.option("--from", "from_", type=int, metavar="N", help="The older version [default: the one before].")
@click.option("--to", type=int, metavar="N", help="The newer version [default: the newest].")
@with_session
def compare(session: Session, path: str, from_: int | None, to: int | None) -> None:
    """Show what changed from one version of a secret to another, with the values."""
    place = store_path("compare", path)
    with session.client(advice=_NO_VERSION) as client:
        found = client.read(place, **{"from": from_, "to": to}).data
    rows = [("added", name, "-", text(value)) for name, value in (found.get("added") or {}).items()]
    rows += [("removed", name, text(value), "-") for name, value in (found.get("removed") or {}).items()]
    rows += [
        ("changed", name, text(both.get("from")), text(both.get("to")))
        for name, both in (found.get("changed") or {}).items()
    ]
    old, new = (f"Version {(found.get(side) or {}).get('version')}" for side in ("from", "to"))
    session.show(found, Table(columns=("Change", "Field", old, new), rows=tuple(rows)))


@click.command()
@click.argument("path")
@click.option("--version", type=int, metavar="N", required=True, help="The version to go back to.")
@click.option("--cas", type=int, metavar="VERSION", help="Only if this is the newest version.")
@with_session
def rollback(session: Session, path: str, version: int, cas: int | None) -> None:
    """Write the value of an older version as the newest version."""
    secret_path(path)
    body: dict[str, Any] = {"version": version}
    if cas is not None:
        body["options"] = {"cas": cas}
    with session.client(advice=_NO_VERSION) as client:
        session.show(client.write(store_path("rollback", path), body).data)
