"""``secrethub kv metadata``: what is known of a secret beside its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cluster.cli.kv_path import store_path
from cluster.cli.output import fields, visible
from cluster.cli.session import Session, is_there, with_session


@click.group()
def metadata() -> None:
    """Read and write a secret's settings and custom metadata."""


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--custom", metavar="KEY=VALUE", multiple=True, help="Custom metadata; several times."),
        click.option(
            "--delete-version-after", metavar="DURATION", help="How long new versions are readable."
        ),
        click.option(
            "--cas-required/--no-cas-required",
            default=None,
            help="Whether every write must say which version it follows.",
        ),
        click.option(
            "--max-versions", type=int, metavar="N", help="Versions to keep (0: the store's setting)."
        ),
    ):
        command = option(command)
    return command


@metadata.command()
@click.argument("path")
@with_session
def get(session: Session, path: str) -> None:
    """Read a secret's settings, custom metadata and versions."""
    place = store_path("metadata", path)
    with session.client() as client:
        found = client.read(place).data
    about = {name: value for name, value in found.items() if name not in {"versions", "custom_metadata"}}
    tables = [fields(about)]
    if found.get("custom_metadata"):
        tables.append(fields(found["custom_metadata"], "Custom metadata"))
    session.show(found, *tables)


@metadata.command()
@click.argument("path")
@_settings
@with_session
def put(session: Session, /, path: str, **given: Any) -> None:
    """Write settings, and custom metadata instead of all that was there."""
    place, body = store_path("metadata", path), _body(given)
    with session.client() as client:
        session.warn(client.write(place, body).warnings)
    session.say(f"The metadata of {visible(path)} is written.")


@metadata.command()
@click.argument("path")
@_settings
@click.option("--remove", metavar="KEY", multiple=True, help="Custom metadata to remove; several times.")
@with_session
def patch(session: Session, /, path: str, remove: tuple[str, ...], **given: Any) -> None:
    """Change some settings and fields of the custom metadata; the others stay."""
    place, body = store_path("metadata", path), _body(given, remove)
    with session.client() as client:
        session.warn(client.patch(place, body).warnings)
    session.say(f"The metadata of {visible(path)} is changed.")


@metadata.command()
@click.argument("path")
@with_session
def delete(session: Session, path: str) -> None:
    """Remove a secret with all its versions for good. Nothing brings it back."""
    place = store_path("metadata", path)
    with session.client() as client:
        there = is_there(client, place)
        client.delete(place)
    session.say_deleted(f"secret {visible(path)}", there=there)


def _body(given: dict[str, Any], remove: tuple[str, ...] = ()) -> dict[str, Any]:
    custom: dict[str, str | None] = dict.fromkeys(remove)
    for pair in given.pop("custom"):
        name, equals, value = pair.partition("=")
        if not equals or not name or name in custom:
            raise click.UsageError("custom metadata is written KEY=VALUE, each key once")
        custom[name] = value
    body = {name: value for name, value in given.items() if value is not None}
    if custom:
        body["custom_metadata"] = custom
    if not body:
        raise click.UsageError("say what to write, for example --max-versions 5 or --custom owner=web")
    return body
