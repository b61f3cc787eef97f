"""``secrethub user``: people who log in with a name and a password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.inputs import auth_mount, read_secret
from cluster.cli.output import Table, names
from cluster.cli.session import Session, is_there, with_session

if TYPE_CHECKING:
    from secrethub.client import Client

_mount = click.option(
    "--mount",
    default="userpass",
    show_default=True,
    metavar="PATH",
    callback=auth_mount,
    help="Of the auth method.",
)
_password_file = click.option(
    "--password-file", metavar="FILE", help="File with the password (- for standard input)."
)


@click.group()
def user() -> None:
    """People who log in with a name and a password."""


@user.command()
@click.argument("name")
@_password_file
@click.option("--keep-password", is_flag=True, help="Change an existing user's settings only.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="A policy of the user's tokens.")
@click.option("--token-ttl", metavar="DURATION", help="How long tokens live, e.g. 8h.")
@click.option("--token-max-ttl", metavar="DURATION", help="How long they may be renewed for.")
@click.option("--bound-cidr", "cidrs", multiple=True, metavar="CIDR", help="A network the user comes from.")
@_mount
@with_session
def write(
    session: Session,
    /,
    name: str,
    password_file: str | None,
    keep_password: bool,
    policies: tuple[str, ...],
    cidrs: tuple[str, ...],
    mount: str,
    **given: Any,
) -> None:
    """Create or change a user. What is not named stays as it is.

    The password is asked for on a terminal, otherwise read from standard input or --password-file.
    """
    body = {key: value for key, value in given.items() if value is not None}
    if policies:
        body["token_policies"] = list(policies)
    if cidrs:
        body["token_bound_cidrs"] = list(cidrs)
    if not keep_password:
        body["password"] = read_secret("Password", password_file)
    with session.client() as client:
        reply = client.write(f"auth/{mount}/users/{name}", body)
    session.warn(reply.warnings)
    session.say(f"User {name} is written.")


@user.command()
@click.argument("name")
@_mount
@with_session
def read(session: Session, name: str, mount: str) -> None:
    """Show a user's settings."""
    with session.client() as client:
        found = client.read(f"auth/{mount}/users/{name}").data
    session.show(found)


@user.command("list")
@_mount
@with_session
def list_(session: Session, mount: str) -> None:
    """List the users' names."""
    with session.client() as client:
        found = client.list(f"auth/{mount}/users")
    session.show(list(found), names(found))


@user.command()
@click.argument("name")
@_mount
@with_session
def delete(session: Session, name: str, mount: str) -> None:
    """Delete a user. Tokens live on until they expire and cannot be renewed."""
    path = f"auth/{mount}/users/{name}"
    with session.client() as client:
        there = is_there(client, path)
        client.delete(path)
    session.say_deleted(f"user {name}", there=there)


@user.command()
@click.argument("name")
@_password_file
@_mount
@with_session
def password(session: Session, name: str, password_file: str | None, mount: str) -> None:
    """Change a user's password."""
    body = {"password": read_secret("New password", password_file)}
    with session.client() as client:
        client.write(f"auth/{mount}/users/{name}/password", body)
    session.say(f"The password of {name} is changed.")


@user.command()
@with_session
def locked(session: Session) -> None:
    """List the names that are locked after failed logins."""
    with session.client() as client:
        found = client.read("sys/locked-users").data
    session.show(found, Table(columns=("Mount accessor", "Name"), rows=_locked(found)))


@user.command()
@click.argument("name")
@_mount
@with_session
def unlock(session: Session, name: str, mount: str) -> None:
    """Let a locked name in again."""
    with session.client() as client:
        methods = client.read("sys/auth").data
        method = methods.get(f"{mount}/")
        if method is None:
            raise click.ClickException(f"no auth method is enabled at {mount}")
        was_locked = _is_locked(client, method["accessor"], name)
        client.write(f"sys/locked-users/{method['accessor']}/unlock/{name}")
    session.say(f"{name} may log in again." if was_locked else f"{name} was not locked.")


def _is_locked(client: Client, accessor: str, name: str) -> bool:
    """Tell whether a name is locked; of whoever may not look it is taken that it was."""
    from secrethub.client import ApiError

    try:
        found = client.read("sys/locked-users", mount_accessor=accessor).data
    except ApiError as exc:
        if exc.code != "permission_denied":
            raise
        return True
    return (accessor, name.lower()) in _locked(found)


def _locked(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (mount["mount_accessor"], name)
        for namespace in found["by_namespace"]
        for mount in namespace["mount_accessors"]
        for name in mount["alias_identifiers"]
    )
