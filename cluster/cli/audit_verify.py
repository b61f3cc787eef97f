"""``secrethub audit verify`` and ``public-key``: the ledger in Core, or exports of it without Core."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.output import fields
from cluster.cli.session import Session, with_session

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command()
@click.option(
    "--file",
    "files",
    metavar="FILE",
    type=Path,
    multiple=True,
    help="Verify an export instead, without asking the server; archive segments in order, then the export.",
)
@click.option("--public-key", metavar="FILE", type=Path, help="The notary's public key, for --file.")
@click.option(
    "--witness",
    metavar="FILE",
    type=Path,
    help="What a node or an agent has seen (witness-….json in its state directory), for --file.",
)
@click.option(
    "--state",
    is_flag=True,
    help="Also compare the rows of the database with what the ledger says of them, and name the bad ones.",
)
@with_session
def verify(
    session: Session, files: tuple[Path, ...], public_key: Path | None, witness: Path | None, state: bool
) -> None:
    """Recompute the whole ledger and name the first bad record.

    Exits with 1 when a record was changed, removed, added or moved. With --state also when that was done to
    a row that decides who may do what, or that says which secrets there are. With --file nothing but the
    files and the public key is needed: what a checkpoint vouches for cannot have been changed by anybody.
    With --witness the files must have what that node or agent has seen.
    """
    if bool(files) is not bool(public_key):
        raise click.UsageError("--file and --public-key go together")
    if witness is not None and not files:
        raise click.UsageError("--witness goes with --file; Core compares with its node's own by itself")
    if files and state:
        raise click.UsageError("--state compares with the database; an export has none")
    with _progress() as tell:
        found = (
            _in_core(session, tell, state=state)
            if public_key is None
            else _in_files(files, public_key, witness, tell)
        )
    session.show(found, fields(_summary(found)))
    if not found["ok"]:
        raise click.ClickException(_damage(found))


@click.command("public-key")
@with_session
def public_key(session: Session) -> None:
    """Print the public key that the ledger's checkpoints are verified with (PEM).

    Keep it away from the cluster: exports are verified with it, also when nobody trusts the cluster any more.
    """
    with session.client() as client:
        found = client.read("sys/audit/public-key").data
    if session.format == "table":
        click.echo(found["public_key"], nl=False)
    else:
        session.show(found)


def _in_core(
    session: Session, tell: Callable[[Mapping[str, Any]], None], *, state: bool
) -> Mapping[str, Any]:
    from secrethub.client.messages import Request

    request = Request(
        method="POST", path="sys/audit/verify", body={"state": state}, accept="application/x-ndjson"
    )
    found: Mapping[str, Any] = {}
    with session.client() as client, client.lines(request) as lines:
        for line in lines:
            if line.strip():
                found = json.loads(line)
                tell(found)
    if "ok" not in found:
        raise click.ClickException("the verification broke off before its end; look at the server's log")
    return found


def _in_files(
    files: tuple[Path, ...], key: Path, witness: Path | None, tell: Callable[[Mapping[str, Any]], None]
) -> Mapping[str, Any]:
    from secrethub.audit.export_reader import read_public_key, verify_files
    from secrethub.audit.witness import read_witness
    from secrethub.errors import InvalidRequest

    try:
        public = read_public_key(key.read_bytes())
        kept = None if witness is None else read_witness(witness.read_bytes())
        report = verify_files(files, public, lambda count: tell({"verified": count}), witness=kept)
    except (InvalidRequest, ValueError) as exc:
        raise click.ClickException(str(exc)) from exc
    except OSError as exc:
        raise click.ClickException(f"{exc.filename}: {exc.strerror}") from exc
    bad = report.first_bad
    return {
        "entries": report.entries,
        "streams": report.streams,
        "checkpoints": report.checkpoints,
        "elsewhere": report.elsewhere,
        "unproven": report.unproven,
        "ok": report.ok,
        "first_bad": bad and {"stream": bad.stream, "number": bad.number, "reason": bad.reason},
    }


def _summary(found: Mapping[str, Any]) -> dict[str, Any]:
    verdict = "intact" if found["ok"] else "damaged"
    shown = {"Verdict": verdict, "Entries": found.get("entries"), "Checkpoints": found.get("checkpoints")}
    if found.get("unproven"):
        shown["Unproven"] = f"{found['unproven']:,} entries that no checkpoint vouches for"
    if found.get("elsewhere"):
        shown["Elsewhere"] = f"{found['elsewhere']:,} streams begin in files that are not here"
    state = found.get("state")
    if state:
        shown["Rows"] = state["rows"]
        for number, row in enumerate(state["bad"], 1):
            shown[f"Bad row {number}"] = _row(row)
        if state["unrecorded"]:
            shown["Unrecorded"] = f"{state['unrecorded']:,} rows or buckets are newer than the ledger knows"
    return shown


def _damage(found: Mapping[str, Any]) -> str:
    bad = found.get("first_bad") or {}
    if "table" in bad:
        return f"the database is not as the ledger says: {_row(bad)}"
    return f"the ledger is damaged: {_record(bad)}: {bad.get('reason')}"


def _row(bad: Mapping[str, Any]) -> str:
    known = f"; {_record(bad)} says what should be there" if bad.get("stream") else ""
    return f"{bad['table']} {bad['key']}: {bad['reason']}{known}"


def _record(bad: Mapping[str, Any]) -> str:
    return f"stream {bad.get('stream')} record {bad.get('number')}"


@contextmanager
def _progress() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show how far it is, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _line: None
        return
    from rich.console import Console

    with Console(stderr=True).status("Verifying …") as status:
        yield lambda line: status.update(
            f"Verifying … {line.get('verified', 0):,} of {line.get('of', 0):,} entries"
        )
