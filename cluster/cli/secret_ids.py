"""``secrethub approle secret-ids``: the SecretIDs that exist, by their accessors."""

from __future__ import annotations

import click

from cluster.cli.output import names
from cluster.cli.session import Session, with_session

MOUNT = "approle-mount"
"""Where the commands' context has the auth method's path."""


def at(path: str) -> str:
    """Return a path of the auth method that the command line names."""
    return f"auth/{click.get_current_context().meta[MOUNT]}/{path}"


@click.group("secret-ids")
def secret_ids() -> None:
    """List, look up and destroy SecretIDs by their accessors."""


@secret_ids.command("list")
@click.argument("role")
@with_session
def list_(session: Session, role: str) -> None:
    """List the accessors of a role's SecretIDs."""
    with session.client() as client:
        found = client.list(at(f"role/{role}/secret-id"))
    session.show(list(found), names(found, "Accessor"))


@secret_ids.command()
@click.argument("role")
@click.argument("accessor")
@with_session
def lookup(session: Session, role: str, accessor: str) -> None:
    """Show what a SecretID is good for."""
    path = at(f"role/{role}/secret-id-accessor/lookup")
    with session.client() as client:
        found = client.write(path, {"secret_id_accessor": accessor}).data
    session.show(found)


@secret_ids.command()
@click.argument("role")
@click.argument("accessor")
@with_session
def destroy(session: Session, role: str, accessor: str) -> None:
    """Destroy a SecretID: it lets nobody in any more."""
    path = at(f"role/{role}/secret-id-accessor/destroy")
    with session.client() as client:
        client.write(path, {"secret_id_accessor": accessor})
    session.say("The SecretID is destroyed.")


@secret_ids.command()
@with_session
def tidy(session: Session) -> None:
    """Remove SecretIDs that have expired now."""
    with session.client() as client:
        reply = client.write(at("tidy/secret-id"))
    session.warn([text for text in reply.warnings if "left alone" in text])
    session.say("Expired SecretIDs are removed.")
