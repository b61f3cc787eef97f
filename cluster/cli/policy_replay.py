"""``secrethub policy replay``: a proposed policy against the requests of the past."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.inputs import read_text
from cluster.cli.output import Table, fields
from cluster.cli.session import Session, with_session

_COLUMNS = ("Time", "Actor", "Operation", "Path", "Before", "After", "Entry")


@click.command()
@click.argument("source", metavar="FILE")
@click.option("--name", required=True, help="The policy that it would replace, or be.")
@click.option("--since", default="1d", metavar="WHEN", help="An instant, or how long ago [default: 1d].")
@click.option("--until", metavar="WHEN", help="An instant [default: now].")
@click.option("--actor", default="", help="How the ledger's name of whoever asked begins, e.g. agent:6f1c.")
@click.option("--attach", is_flag=True, help="As if everybody had the policy, not only those who do.")
@click.option("--limit", default=1000, type=click.IntRange(min=1), help="Stop after so many changes.")
@with_session
def replay(session: Session, /, source: str, limit: int, **given: Any) -> None:
    """Tell which requests in the ledger the policy in FILE (- for standard input) would decide differently.

    Each is decided with the policies that whoever asked has today. What the ledger does not hold is not
    guessed; such requests are counted as undecided. Nothing is written.
    """
    body = {name: value for name, value in given.items() if value is not None} | {"policy": read_text(source)}
    changes: list[dict[str, Any]] = []
    undecided: dict[str, int] = {}
    looked_at = 0
    with session.client() as client:
        while True:
            reply = client.write("sys/policies/replay", body)
            found = reply.data
            if "after" not in body:
                session.warn(reply.warnings)
            changes += found["changes"]
            looked_at += found["looked_at"]
            for reason, count in found["undecided"].items():
                undecided[reason] = undecided.get(reason, 0) + count
            if not found["next"] or len(changes) >= limit:
                break
            body["after"] = found["next"]
    if found["next"]:
        session.note("There are more requests: narrow the time, or raise --limit.")
    rows = tuple(
        (
            one["time"],
            one["actor"],
            one["operation"],
            one["path"],
            one["before"],
            one["after"],
            f"{one['stream']}:{one['number']}",
        )
        for one in changes
    )
    counts = {"Requests": looked_at, "Would change": len(changes), "Undecided": sum(undecided.values())}
    session.show(
        {"changes": changes, "undecided": undecided, "looked_at": looked_at},
        *((Table(columns=_COLUMNS, rows=rows),) if rows else ()),
        fields({**counts, **{f"  {reason}": count for reason, count in undecided.items()}}, "", "Count"),
    )
