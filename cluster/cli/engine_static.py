"""``secrethub engine static``: users that are there already, whose passwords are replaced."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.engine import delete_one, given, mounted, show_list, show_one, statements, write_one
from cluster.cli.session import Session, with_session


@click.group()
def static() -> None:
    """Users that are there already, whose passwords are replaced."""


@static.command()
@click.argument("name")
@click.option("--connection", "db_name", help="By which the password is replaced.")
@click.option("--username", help="Of the user.")
@click.option("--every", "rotation_period", metavar="DURATION", help="How often it is replaced.")
@click.option("--cron", "rotation_schedule", metavar="CRON", help="When: five fields.")
@click.option("--zone", "rotation_zone", help="Time zone of --cron [default: UTC].")
@click.option("--statement", multiple=True, metavar="SQL", help="Replaces it, if not as usual; @FILE.")
@mounted
@with_session
def write(session: Session, /, name: str, mount: str, statement: tuple[str, ...], **options: Any) -> None:
    """Write the static role NAME; the password of a new one is replaced at once."""
    body = given({**options, "rotation_statements": statements(statement)})
    write_one(session, mount, f"static-roles/{name}", body, f"Static role {name} is written.")


@static.command()
@click.argument("name")
@mounted
@with_session
def read(session: Session, mount: str, name: str) -> None:
    """Show a static role, without its password."""
    show_one(session, mount, f"static-roles/{name}")


@static.command("list")
@mounted
@with_session
def list_(session: Session, mount: str) -> None:
    """List the static roles' names."""
    show_list(session, mount, "static-roles")


@static.command()
@click.argument("name")
@mounted
@with_session
def delete(session: Session, mount: str, name: str) -> None:
    """Delete a static role; its user keeps the last password."""
    delete_one(session, mount, f"static-roles/{name}", f"static role {name}")


@static.command()
@click.argument("name")
@mounted
@with_session
def creds(session: Session, mount: str, name: str) -> None:
    """Show user and password of a static role."""
    show_one(session, mount, f"static-creds/{name}")


@static.command()
@click.argument("name")
@mounted
@with_session
def rotate(session: Session, mount: str, name: str) -> None:
    """Replace the password of a static role now."""
    write_one(session, mount, f"rotate-role/{name}", {}, f"The password of {name} is replaced.")
