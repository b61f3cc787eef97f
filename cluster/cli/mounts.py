"""``secrethub auth`` and ``secrethub mount``: what is mounted, and how it is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cluster.cli.output import Table, fields
from cluster.cli.session import Session, is_there, with_session

_DURATION = "DURATION"


@click.group()
def auth() -> None:
    """Ways in: list, enable, tune, move and disable auth methods."""


@click.group()
def mount() -> None:
    """Secrets engines: list, enable, tune, move and disable them."""


@auth.command("list")
@with_session
def list_auth(session: Session) -> None:
    """List auth methods."""
    _list(session, "sys/auth")


@mount.command("list")
@with_session
def list_mounts(session: Session) -> None:
    """List secrets engines."""
    _list(session, "sys/mounts")


@auth.command("enable")
@click.argument("kind", metavar="TYPE")
@click.option("--path", help="Where, such as team/machines [default: the type's name].")
@click.option("--description", help="For people.")
@click.option("--default-ttl", metavar=_DURATION, help="What tokens live if their role does not say.")
@click.option("--max-ttl", metavar=_DURATION, help="What tokens live at most.")
@with_session
def enable_auth(session: Session, /, kind: str, path: str | None, **settings: str | None) -> None:
    """Enable an auth method of TYPE, such as approle."""
    chosen = (path or kind).strip("/")
    body: dict[str, Any] = {"type": kind, "config": _limits(settings)}
    if settings["description"]:
        body["description"] = settings["description"]
    with session.client() as client:
        reply = client.write(f"sys/auth/{chosen}", body)
    session.warn(reply.warnings)
    session.say(f"The auth method {kind} is enabled at auth/{chosen}/.")


@mount.command("enable")
@click.argument("kind", metavar="TYPE")
@click.option("--path", help="Where, such as team/kv [default: the type's name].")
@click.option("--version", type=click.Choice(["1", "2"]), help="Of a kv store [default: 2].")
@click.option("--description", default="", help="For people.")
@with_session
def enable_mount(
    session: Session, /, kind: str, path: str | None, version: str | None, description: str
) -> None:
    """Mount a secrets engine of TYPE: kv, database or aws."""
    chosen = (path or kind).strip("/")
    body: dict[str, Any] = {"type": kind, "description": description}
    if version is not None or kind == "kv":
        body["options"] = {"version": version or "2"}
    with session.client() as client:
        reply = client.write(f"sys/mounts/{chosen}", body)
    session.warn(reply.warnings)
    session.say(f"The secrets engine {kind} is mounted at {chosen}/.")


def _tune_options(command: Any) -> Any:
    for option in (
        click.option("--max-ttl", metavar=_DURATION, help="At most; system for the cluster's."),
        click.option("--default-ttl", metavar=_DURATION, help="Usually; system for the cluster's."),
        click.option("--description", help="For people."),
    ):
        command = option(command)
    return command


@auth.command("tune")
@click.argument("path")
@_tune_options
@with_session
def tune_auth(session: Session, /, path: str, **settings: str | None) -> None:
    """Change the settings of the auth method at PATH, or show them when none is given."""
    _tune(session, f"sys/auth/{path.strip('/').removeprefix('auth/')}/tune", settings)


@mount.command("tune")
@click.argument("path")
@_tune_options
@with_session
def tune_mount(session: Session, /, path: str, **settings: str | None) -> None:
    """Change the settings of the secrets engine at PATH, or show them when none is given."""
    _tune(session, f"sys/mounts/{path.strip('/')}/tune", settings)


@auth.command("move")
@click.argument("source", metavar="FROM")
@click.argument("to", metavar="TO")
@with_session
def move_auth(session: Session, source: str, to: str) -> None:
    """Move the auth method at FROM, with its roles and users, to TO. Its tokens end; policies stay."""
    old, new = (f"auth/{path.strip('/').removeprefix('auth/')}" for path in (source, to))
    _move(session, old, new, "auth method")


@mount.command("move")
@click.argument("source", metavar="FROM")
@click.argument("to", metavar="TO")
@with_session
def move_mount(session: Session, source: str, to: str) -> None:
    """Move the secrets engine at FROM, with everything in it, to TO. Policies are not changed."""
    _move(session, source.strip("/"), to.strip("/"), "secrets engine")


@auth.command("disable")
@click.argument("path")
@with_session
def disable_auth(session: Session, path: str) -> None:
    """Disable the auth method at PATH with everything in it. Its tokens end at once."""
    name = path.strip("/").removeprefix("auth/")
    _disable(session, f"sys/auth/{name}", f"auth method at auth/{name}/")


@mount.command("disable")
@click.argument("path")
@with_session
def disable_mount(session: Session, path: str) -> None:
    """Remove the secrets engine at PATH with every secret in it."""
    name = path.strip("/")
    _disable(session, f"sys/mounts/{name}", f"secrets engine at {name}/")


def _list(session: Session, path: str) -> None:
    with session.client() as client:
        found = client.read(path).data
    rows = tuple(
        (name, str(one["type"]), str(one["accessor"]), str(one["description"]))
        for name, one in sorted(found.items())
    )
    session.show(found, Table(columns=("Path", "Type", "Accessor", "Description"), rows=rows))


def _move(session: Session, old: str, new: str, what: str) -> None:
    with session.client() as client:
        reply = client.write("sys/remount", {"from": old, "to": new})
    session.warn(reply.warnings)
    session.say(f"The {what} at {old}/ is at {new}/ now.")


def _limits(settings: Mapping[str, str | None]) -> dict[str, str]:
    given = {"default_lease_ttl": settings["default_ttl"], "max_lease_ttl": settings["max_ttl"]}
    return {name: value for name, value in given.items() if value is not None}


def _tune(session: Session, path: str, settings: Mapping[str, str | None]) -> None:
    body = _limits(settings)
    if settings["description"] is not None:
        body["description"] = settings["description"]
    with session.client() as client:
        if body:
            client.write(path, body)
            session.say("The settings are changed.")
            return
        found = client.read(path).data
    session.show(found, fields(found))


def _disable(session: Session, path: str, what: str) -> None:
    with session.client() as client:
        # One that is not there is answered as bad input, as Vault does.
        there = is_there(client, path, absent="invalid_request")
        client.delete(path)
    session.say_deleted(what, there=there)
