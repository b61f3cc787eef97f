"""``secrethub quota leases``: how many leases there may be."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.output import names
from cluster.cli.session import Session, is_there, with_session

_LEASES = "sys/quotas/lease-count"


@click.group()
def leases() -> None:
    """Limit how many leases there may be."""


@leases.command()
@click.argument("name")
@click.option("--max", "max_leases", type=int, metavar="N", help="Leases at once.")
@click.option("--path", help="A mount, or a path below one, perhaps with a * at its end [default: all].")
@click.option("--role", help="Of the secrets engine that is --path.")
@with_session
def write(session: Session, /, name: str, **given: Any) -> None:
    """Write the lease-count quota NAME. What is not named stays as it is."""
    body = {key: value for key, value in given.items() if value is not None}
    with session.client() as client:
        reply = client.write(f"{_LEASES}/{name}", body)
    session.warn(reply.warnings)
    session.say(f"Quota {name} is written and in force.")


@leases.command()
@click.argument("name")
@with_session
def read(session: Session, name: str) -> None:
    """Show a lease-count quota, and how many leases it counts."""
    with session.client() as client:
        found = client.read(f"{_LEASES}/{name}").data
    session.show(found)


@leases.command("list")
@with_session
def list_(session: Session) -> None:
    """List the lease-count quotas' names."""
    with session.client() as client:
        found = client.list(_LEASES)
    session.show(list(found), names(found))


@leases.command()
@click.argument("name")
@with_session
def delete(session: Session, name: str) -> None:
    """Lift a lease-count quota."""
    with session.client() as client:
        there = is_there(client, f"{_LEASES}/{name}")
        client.delete(f"{_LEASES}/{name}")
    session.say_deleted(f"quota {name}", there=there)
