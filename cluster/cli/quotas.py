"""``secrethub quota``: how many requests are admitted; of leases see ``lease_quotas.py``."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.lease_quotas import leases
from cluster.cli.output import names
from cluster.cli.session import Session, is_there, with_session

_LIMITS = "sys/quotas/rate-limit"
_CONFIG = "sys/quotas/config"


@click.group()
def quota() -> None:
    """Limit how many requests are admitted, and how many leases there may be."""


quota.add_command(leases)


@quota.command()
@click.argument("name")
@click.option("--rate", type=float, help="Requests in an interval.")
@click.option("--path", help="A mount, or a path below one, perhaps with a * at its end [default: all].")
@click.option("--role", help="Of logins at the auth method that is --path.")
@click.option("--interval", metavar="DURATION", help="[default: 1s]")
@click.option("--block-interval", metavar="DURATION", help="Admit nothing for so long once it was too much.")
@click.option(
    "--group-by",
    type=click.Choice(["ip", "none", "entity_then_ip", "entity_then_none"]),
    help="Who has a budget of its own [default: ip].",
)
@with_session
def write(session: Session, /, name: str, **given: Any) -> None:
    """Write the rate limit NAME. What is not named stays as it is."""
    body = {key: value for key, value in given.items() if value is not None}
    with session.client() as client:
        reply = client.write(f"{_LIMITS}/{name}", body)
    session.warn(reply.warnings)
    session.say(f"Quota {name} is written and in force.")


@quota.command()
@click.argument("name")
@with_session
def read(session: Session, name: str) -> None:
    """Show a rate limit."""
    with session.client() as client:
        found = client.read(f"{_LIMITS}/{name}").data
    session.show(found)


@quota.command("list")
@with_session
def list_(session: Session) -> None:
    """List the rate limits' names."""
    with session.client() as client:
        found = client.list(_LIMITS)
    session.show(list(found), names(found))


@quota.command()
@click.argument("name")
@with_session
def delete(session: Session, name: str) -> None:
    """Lift a rate limit."""
    with session.client() as client:
        there = is_there(client, f"{_LIMITS}/{name}")
        client.delete(f"{_LIMITS}/{name}")
    session.say_deleted(f"quota {name}", there=there)


@quota.command()
@click.argument("paths", nargs=-1)
@click.option("--none", "nothing", is_flag=True, help="Exempt nothing any more.")
@with_session
def exempt(session: Session, paths: tuple[str, ...], nothing: bool) -> None:
    """Exempt PATHS, and no others, from every rate limit; without any, show those that are exempt."""
    if paths and nothing:
        raise click.UsageError("name paths, or --none")
    with session.client() as client:
        if paths or nothing:
            client.write(_CONFIG, {"rate_limit_exempt_paths": list(paths)})
            session.say("The exempt paths are written.")
            return
        found = client.read(_CONFIG).data["rate_limit_exempt_paths"]
    session.show(found, names(found, "Path"))
