"""``secrethub audit archive``: old entries leave the ledger for files or S3."""

from __future__ import annotations

import click

from cluster.cli.inputs import read_pairs
from cluster.cli.output import Table, fields, text
from cluster.cli.session import Session, with_session

_PLACE = "sys/audit/archive"
_NONE = {"not_found": "nothing is archived: `secrethub audit archive config --type … --retention …`"}


@click.group()
def archive() -> None:
    """Move old entries into files or S3, and verify them there."""


@archive.command()
@click.argument("pairs", nargs=-1, metavar="[OPTION=VALUE | OPTION=@FILE | OPTION=-]...")
@click.option("--type", "kind", type=click.Choice(["file", "s3"]), help="Where to.")
@click.option("--retention", metavar="DURATION", help="How long entries stay in the ledger, such as 2160h.")
@with_session
def config(session: Session, /, pairs: tuple[str, ...], kind: str | None, retention: str | None) -> None:
    r"""Say where old entries go, or, without options, show it.

    \b
    secrethub audit archive config --retention 2160h --type file path=/var/lib/secrethub/node/audit/archive
    secrethub audit archive config --retention 2160h --type s3 bucket=ledger region=eu-central-1 \
        prefix=prod/ access_key_id=AKIA… secret_access_key=@key

    S3 may have an endpoint=URL. Nothing of the server's own credentials is used. Either may have
    segment_entries=N, about how many entries a segment has; 10000 by default.
    """
    if (kind is None) != (retention is None) or (kind is None and pairs):
        raise click.UsageError("give --type and --retention, or neither to show the configuration")
    with session.client() as client:
        if kind is not None:
            client.write(_PLACE, {"type": kind, "retention": retention, **read_pairs(pairs, options=True)})
            session.say(f"Entries older than {retention} are archived from now on.")
            return
        found = client.read(_PLACE).data
    session.show(found, fields({name: value for name, value in found.items() if name != "status"}))


@archive.command()
@with_session
def off(session: Session) -> None:
    """Archive no more entries. What is archived stays where it is."""
    with session.client() as client:
        client.delete(_PLACE)
    session.say("Nothing is archived any more.")


@archive.command()
@with_session
def run(session: Session) -> None:
    """Archive now what is old enough."""
    with session.client(advice=_NONE) as client:
        found = client.write(f"{_PLACE}/run", {}).data
    session.show(found, fields({"Entries": found["entries"], "Segments": len(found["segments"])}))
    if found["waiting"]:
        session.note(f"Not all: {found['waiting']}.")


@archive.command("list")
@click.option("--after", type=int, metavar="NUMBER", help="Where an earlier page ended.")
@with_session
def list_(session: Session, after: int | None) -> None:
    """List the archive's segments."""
    with session.client() as client:
        found = client.read(f"{_PLACE}/segments", after=after).data
    names = ("number", "state", "file", "since", "until", "entries", "size")
    rows = tuple(tuple(text(one[name]) for name in names) for one in found["segments"])
    session.show(found, Table(columns=tuple(name.capitalize() for name in names), rows=rows))
    if session.format == "table" and found["next"]:
        session.note(f"There is more: go on with --after {found['next']}")


@archive.command()
@with_session
def verify(session: Session) -> None:
    """Read all segments back and verify them. Exits with 1 when one is damaged."""
    with session.client(advice=_NONE) as client:
        found = client.write(f"{_PLACE}/verify", {}).data
    verdict = "intact" if found["ok"] else "damaged"
    shown = {"Verdict": verdict, "Segments": found["segments"], "Entries": found["entries"]}
    session.show(found, fields(shown))
    if not found["ok"]:
        bad = found["first_bad"]
        raise click.ClickException(f"segment {bad['segment']}: {bad['reason']}")
