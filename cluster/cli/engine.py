"""``secrethub engine``: users at databases and AWS. The groups below it, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cluster.cli.lazy import LazyGroup
from cluster.cli.output import Table, names
from cluster.cli.session import Session, is_there, with_session

F = TypeVar("F", bound=Callable[..., Any])

_COMMANDS = {
    "connection": ("cluster.cli.engine_connection:connection", "Where databases are, and how they are."),
    "role": ("cluster.cli.engine_role:role", "Whom users are made for, and how."),
    "static": ("cluster.cli.engine_static:static", "Users that are there, whose passwords are replaced."),
    "aws": ("cluster.cli.engine_aws:aws", "Credentials of AWS: who we are there, roles, strays."),
    "creds": ("cluster.cli.engine:creds", "Make a user of a role."),
    "strays": ("cluster.cli.engine:strays", "Find users without a lease, and remove them."),
}


@click.command(cls=LazyGroup, lazy=_COMMANDS)
def engine() -> None:
    """Users at databases and AWS, and what they are made by."""


def mounted_at(path: str) -> Callable[[F], F]:
    """Return what gives a command the option that says at which mount, usually at this one."""
    return click.option("--mount", metavar="PATH", default=path, show_default=True, help="Of the engine.")


mounted = mounted_at("secrets/dynamic/postgresql")


@click.command()
@click.argument("role")
@mounted
@with_session
def creds(session: Session, mount: str, role: str) -> None:
    """Make a user of ROLE; it is gone when its lease ends."""
    show_creds(session, mount, role)


@click.command()
@click.argument("connection")
@click.option("--remove", is_flag=True, help="Remove them, with their sessions.")
@mounted
@with_session
def strays(session: Session, mount: str, connection: str, *, remove: bool) -> None:
    """Find users of this cluster at CONNECTION that have no lease."""
    show_strays(session, mount, f"strays/{connection}", remove=remove)


def show_creds(session: Session, mount: str, role: str, asked: dict[str, Any] | None = None) -> None:
    """Have credentials of a role made, and show them with their lease."""
    with session.client() as client:
        reply = client.write(f"{_at(mount)}/creds/{role}", asked or {})
    session.warn(reply.warnings)
    lease = {"lease_id": reply.lease_id, "lease_duration": reply.lease_duration}
    session.show({**reply.data, **lease})


def show_strays(session: Session, mount: str, path: str, *, remove: bool) -> None:
    """Show users without a lease, and what became of them; ends with 1 when some could not be removed."""
    path = f"{_at(mount)}/{path}"
    with session.client() as client:
        found = client.write(path).data if remove else client.read(path).data
    rows = tuple(
        (name, "removed" if name in found["removed"] else found["failed"].get(name, "there"))
        for name in found["strays"]
    )
    session.show(found, Table(columns=("User", "State"), rows=rows))
    if found["failed"]:
        raise click.exceptions.Exit(1)


def show_health(session: Session, mount: str, path: str, *, check: bool) -> None:
    """Show how a target was found; ends with 1 when it was asked now and is not well."""
    path = f"{_at(mount)}/{path}"
    with session.client() as client:
        found = client.write(path).data if check else client.read(path).data
    rows = tuple((one["at"], f"{one['seconds']:.3f}", one["error"] or "well") for one in found["checks"])
    session.show(found, Table(columns=("At", "Seconds", "How"), rows=rows))
    if check and not found["healthy"]:
        raise click.exceptions.Exit(1)


def show_list(session: Session, mount: str, kind: str) -> None:
    """Show the names of what a mount has of a kind."""
    with session.client() as client:
        found = client.list(f"{_at(mount)}/{kind}")
    session.show(list(found), names(found))


def show_one(session: Session, mount: str, path: str) -> None:
    """Show what is at a path of a mount."""
    with session.client() as client:
        found = client.read(f"{_at(mount)}/{path}").data
    session.show(found)


def write_one(session: Session, mount: str, path: str, body: dict[str, Any], done: str) -> None:
    """Write something at a path of a mount, and say that it is done."""
    with session.client() as client:
        reply = client.write(f"{_at(mount)}/{path}", body)
    session.warn(reply.warnings)
    session.say(done)


def delete_one(session: Session, mount: str, path: str, what: str) -> None:
    """Delete what is at a path of a mount."""
    with session.client() as client:
        there = is_there(client, f"{_at(mount)}/{path}")
        client.delete(f"{_at(mount)}/{path}")
    session.say_deleted(what, there=there)


def statements(given: tuple[str, ...]) -> list[str] | None:
    """Return statements that were given as they are or as ``@file``; None for those that were not."""
    from cluster.cli.inputs import read_text

    return [read_text(text[1:]) if text.startswith("@") else text for text in given] or None


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return those values that were given."""
    return {name: value for name, value in values.items() if value is not None}


def _at(mount: str) -> str:
    return mount.strip("/")
