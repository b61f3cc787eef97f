"""``secrethub rotation``: secrets that are replaced again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.inputs import read_pairs
from cluster.cli.output import Table, names, text
from cluster.cli.session import Session, is_there, with_session

if TYPE_CHECKING:
    from secrethub.client import Client

_ROOT = "sys/rotation"
_LOOK_SECONDS = 0.3
_PAGE = 1000


@click.group()
def rotation() -> None:
    """Replace secrets again and again, and see how that went."""


@rotation.command()
@click.argument("path")
@click.argument("pairs", nargs=-1, metavar="[OPTION=VALUE | OPTION=@FILE | OPTION=-]...")
@click.option("--rotator", default="generated", show_default=True, help="How a new value comes to be.")
@click.option("--every", metavar="DURATION", help="Between two rotations.")
@click.option("--cron", metavar="FIELDS", help="Instead: minute, hour, day, month and weekday.")
@click.option("--zone", metavar="NAME", help="Time zone of --cron [default: UTC].")
@click.option("--jitter", metavar="DURATION", help="By which a rotation is late at most [default: 0].")
@click.option("--confirm-within", metavar="DURATION", help="To wait for agents [default: 5m]; 0 for none.")
@click.option(
    "--late",
    type=click.Choice(["retire", "undo"]),
    help="What to do when not every agent confirmed in time [default: retire the old value].",
)
@with_session
def write(session: Session, /, path: str, pairs: tuple[str, ...], rotator: str, **given: Any) -> None:
    r"""Rotate the secret at PATH from now on, as these options say.

    \b
    secrethub rotation write secrets/prod/api --every 720h field=key length=40
    secrethub rotation write secrets/prod/api --cron '0 3 * * sun' --zone Europe/Berlin --jitter 1h
    """
    body = {key: value for key, value in given.items() if value is not None}
    with session.client() as client:
        client.write(
            f"{_ROOT}/config/{path}", {"rotator": rotator, "options": read_pairs(pairs, options=True), **body}
        )
        found = client.read(f"{_ROOT}/config/{path}").data
    when = f"next at {found['next_at']}" if found["next_at"] else "when somebody asks for it"
    session.say(f"{found['path']} is rotated: {when}.")


@rotation.command()
@click.argument("path")
@with_session
def read(session: Session, path: str) -> None:
    """Show how and when the secret at PATH is rotated, and how far it is."""
    with session.client() as client:
        found = client.read(f"{_ROOT}/config/{path}").data
    session.show(found)


@rotation.command("list")
@with_session
def list_(session: Session) -> None:
    """List the secrets that are rotated."""
    found: list[str] = []
    with session.client() as client:
        while page := _page(client, found[-1] if found else ""):
            found += page
            if len(page) < _PAGE:
                break
    session.show(found, names(found, "Path"))


@rotation.command()
@click.argument("path")
@click.option("--force", is_flag=True, help="Also while one is under way, which is left as it is.")
@with_session
def delete(session: Session, path: str, force: bool) -> None:
    """Rotate the secret at PATH no more; the secret itself stays."""
    from secrethub.client.messages import Request

    with session.client() as client:
        there = is_there(client, f"{_ROOT}/config/{path}")
        query = {"force": "true"} if force else {}
        client.send(Request(method="DELETE", path=f"{_ROOT}/config/{path}", query=query))
    session.say_deleted(f"rotation of {path}", there=there)


@rotation.command()
@click.argument("path")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done, and whether it could be.")
@click.option("--wait", is_flag=True, help="Until it has ended; fail unless it was done.")
@with_session
def run(session: Session, path: str, dry_run: bool, wait: bool) -> None:
    """Rotate the secret at PATH now."""
    with session.client() as client:
        found = client.write(f"{_ROOT}/run/{path}", {"dry_run": dry_run}).data
        if dry_run:
            session.show(found)
            if not found["possible"]:
                raise click.exceptions.Exit(1)
            return
        if wait:
            found = _ended(client, path, found["run"])
    if not wait:
        session.say(f"Run {found['run']} has begun: secrethub rotation read {path}")
    if wait or session.format != "table":
        session.show(found)
    if wait and found["outcome"] == "undone":
        raise click.exceptions.Exit(1)


@rotation.command()
@click.argument("path")
@with_session
def pause(session: Session, path: str) -> None:
    """Let the schedule rest; a rotation under way goes on to its end."""
    with session.client() as client:
        client.write(f"{_ROOT}/pause/{path}")
    session.say(f"The schedule of {path} rests.")


@rotation.command()
@click.argument("path")
@with_session
def resume(session: Session, path: str) -> None:
    """Let the schedule go on from now; what it left out is not made up for."""
    with session.client() as client:
        client.write(f"{_ROOT}/resume/{path}")
    session.say(f"The schedule of {path} goes on.")


@rotation.command()
@click.argument("path")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--before", type=click.IntRange(1), help="Only runs before this one.")
@with_session
def history(session: Session, path: str, limit: int, before: int | None) -> None:
    """Show how rotations of the secret at PATH ended, the newest first."""
    with session.client() as client:
        found = client.read(f"{_ROOT}/history/{path}", limit=limit, before=before).data["runs"]
    columns = ("Run", "Outcome", "Began", "Seconds", "Old", "New", "Missing", "Reason")
    keys = ("run", "outcome", "began_at", "seconds", "old_version", "new_version", "missing", "reason")
    rows = tuple(tuple(text(past[key]) for key in keys) for past in found)
    session.show(found, Table(columns=columns, rows=rows))


def _page(client: Client, after: str) -> list[str]:
    from secrethub.client import ApiError

    try:
        return list(client.read(f"{_ROOT}/config", list="true", after=after).data["keys"])
    except ApiError as exc:
        if exc.code != "not_found":
            raise
        return []


def _ended(client: Client, path: str, number: int) -> dict[str, Any]:
    """Wait for a run and return what has become of it."""
    while True:
        found = client.read(f"{_ROOT}/history/{path}", limit=1, before=number + 1).data["runs"]
        if found and found[0]["run"] == number:
            return dict(found[0])
        time.sleep(_LOOK_SECONDS)
