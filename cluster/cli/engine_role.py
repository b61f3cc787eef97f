"""``secrethub engine role``: whom users are made for, and how."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.engine import delete_one, given, mounted, show_list, show_one, statements, write_one
from cluster.cli.session import Session, with_session


@click.group()
def role() -> None:
    """Whom users are made for, and how."""


@role.command()
@click.argument("name")
@click.option("--connection", "db_name", help="At which users are made.")
@click.option("--creation", multiple=True, metavar="SQL", help="Makes a user; @FILE for a file's text.")
@click.option("--revocation", multiple=True, metavar="SQL", help="Ends it, if not as usual.")
@click.option("--renewal", multiple=True, metavar="SQL", help="Lets it live longer, if not as usual.")
@click.option("--rollback", multiple=True, metavar="SQL", help="Takes back one that came to no lease.")
@click.option("--owned-objects", type=click.Choice(["reassign", "drop"]), help="When it ends as usual.")
@click.option("--ttl", "default_ttl", metavar="DURATION", help="That it lives to begin with.")
@click.option("--max-ttl", metavar="DURATION", help="That it lives at most.")
@mounted
@with_session
def write(
    session: Session,
    /,
    name: str,
    mount: str,
    creation: tuple[str, ...],
    revocation: tuple[str, ...],
    renewal: tuple[str, ...],
    rollback: tuple[str, ...],
    **options: Any,
) -> None:
    """Write the role NAME. What is not named stays as it is."""
    body = given(
        {
            **options,
            "creation_statements": statements(creation),
            "revocation_statements": statements(revocation),
            "renew_statements": statements(renewal),
            "rollback_statements": statements(rollback),
        }
    )
    write_one(session, mount, f"roles/{name}", body, f"Role {name} is written.")


@role.command()
@click.argument("name")
@mounted
@with_session
def read(session: Session, mount: str, name: str) -> None:
    """Show a role."""
    show_one(session, mount, f"roles/{name}")


@role.command("list")
@mounted
@with_session
def list_(session: Session, mount: str) -> None:
    """List the roles' names."""
    show_list(session, mount, "roles")


@role.command()
@click.argument("name")
@mounted
@with_session
def delete(session: Session, mount: str, name: str) -> None:
    """Delete a role; its users live as long as their leases."""
    delete_one(session, mount, f"roles/{name}", f"role {name}")
