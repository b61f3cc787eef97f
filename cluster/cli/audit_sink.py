"""``secrethub audit sink``: copies of the ledger in files, syslog and HTTP collectors."""

from __future__ import annotations

import click

from cluster.cli.inputs import read_pairs, read_secret
from cluster.cli.output import Table, text
from cluster.cli.session import Session, with_session


@click.group()
def sink() -> None:
    """Copy the ledger to files, to syslog and to HTTP collectors."""


@sink.command("list")
@with_session
def list_(session: Session) -> None:
    """List sinks, and how far behind they are."""
    with session.client() as client:
        found = client.read("sys/audit").data
    rows = tuple(
        (
            name.rstrip("/"),
            about["type"],
            text(about["status"]["behind"]),
            text(about["status"]["delivered"]),
            text(about["status"]["skipped"]),
            text(about["status"]["last_delivery"]),
            about["status"]["error"] or "-",
        )
        for name, about in sorted(found.items())
    )
    columns = ("Name", "Type", "Behind", "Delivered", "Skipped", "Last delivery", "Error")
    session.show(found, Table(columns=columns, rows=rows))


@sink.command()
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[OPTION=VALUE | OPTION=@FILE | OPTION=-]...")
@click.option("--type", "kind", type=click.Choice(["file", "syslog", "http"]), required=True)
@click.option("--description", metavar="TEXT", default="", help="For people.")
@with_session
def enable(session: Session, /, name: str, pairs: tuple[str, ...], kind: str, description: str) -> None:
    r"""Give every entry from now on to a sink called NAME, too.

    \b
    secrethub audit sink enable local --type file file_path=/var/lib/secrethub/node/audit/ledger.jsonl
    secrethub audit sink enable log --type syslog facility=AUTH tag=secrethub
    secrethub audit sink enable siem --type http url=https://siem.example.com/in authorization=@header

    Of all types: max_lag=24h, after which entries are left out; node=NAME, the only node that delivers.
    """
    body = {"type": kind, "description": description, "options": read_pairs(pairs, options=True)}
    with session.client() as client:
        client.write(f"sys/audit/{name}", body)
    session.say(f"The sink {name} gets every entry from now on.")


@sink.command()
@click.argument("name")
@with_session
def disable(session: Session, name: str) -> None:
    """Remove a sink. What it was given stays where it is."""
    with session.client() as client:
        there = f"{name}/" in client.read("sys/audit").data
        client.delete(f"sys/audit/{name}")
    session.say_deleted(f"sink {name}", there=there)


@sink.command("hash")
@click.argument("name")
@click.option("--file", "source", metavar="FILE", help="Take the value from a FILE (- for standard input).")
@with_session
def hash_(session: Session, name: str, source: str | None) -> None:
    """Tell what a value, asked for or read from standard input, looks like in the ledger."""
    value = read_secret("Value", source)
    with session.client() as client:
        found = client.write(f"sys/audit-hash/{name}", {"input": value}).data
    session.show(found)
