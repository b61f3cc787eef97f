"""``secrethub operator rekey``: other shares, made by enough of the present ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from cluster.cli.attempts import give as give_shares
from cluster.cli.attempts import shares_option
from cluster.cli.drafts import draft
from cluster.cli.output import Table, fields
from cluster.cli.seal import keys_table
from cluster.cli.session import Session, with_session

_recovery = click.option("--recovery", is_flag=True, help="Recovery shares: those that open nothing.")


@click.group()
def rekey() -> None:
    """Make other shares, with enough of the present ones.

    One person starts it, the holders of the present shares `give` theirs, the last of them gets the new
    shares and hands them out, and their holders `verify`. Until then the present shares stay.
    """


@rekey.command()
@click.option("--shares", type=int, default=5, show_default=True, help="Shares to make.")
@click.option("--threshold", type=int, default=3, show_default=True, help="Shares needed later.")
@click.option("--no-verification", is_flag=True, help="Replace the shares without asking for the new ones.")
@_recovery
@with_session
def start(session: Session, shares: int, threshold: int, no_verification: bool, recovery: bool) -> None:
    """Begin (needs a token with sudo). Tell the nonce to those who give shares."""
    body = {
        "secret_shares": shares,
        "secret_threshold": threshold,
        "require_verification": not no_verification,
    }
    with session.client() as client:
        found = client.write(f"{_base(recovery)}/init", body).data
    session.show(found, progress_table(found))


@rekey.command()
@shares_option
@click.option("--out", metavar="FILE", type=Path, help="Write the new shares there (JSON, 0600), not here.")
@_recovery
@with_session
def give(session: Session, source: str | None, nonce: str | None, out: Path | None, recovery: bool) -> None:
    """Give present shares. Whoever gives the last one needed gets the new shares, once."""
    base = _base(recovery)
    if out is not None and out.exists():
        raise click.ClickException(f"{out} exists; shares are not written over something else")
    with draft(out) if out is not None else nullcontext() as place:
        found = give_shares(session, source, nonce, f"{base}/init", f"{base}/update")
        if not found.get("complete"):
            session.show(found, progress_table(found))
            return
        if place is not None:
            try:
                place.keep(json.dumps(found, indent=2).encode() + b"\n")
            except OSError as exc:
                # Nobody can ask for them again.
                session.show(found, keys_table(found))
                raise click.ClickException(f"{out}: {exc.strerror}; the shares are printed above") from exc
    if out is not None:
        session.say(f"The new shares are in {out}; move them to where they belong.")
    else:
        session.show(found, keys_table(found))
    if found.get("verification_required"):
        session.say(
            "\nThe old shares stay until enough of the new ones were given to `operator rekey verify`."
        )
    else:
        session.say("\nThe new shares have replaced the old ones.")


@rekey.command()
@shares_option
@_recovery
@with_session
def verify(session: Session, source: str | None, nonce: str | None, recovery: bool) -> None:
    """Give new shares back; enough of them replace the old ones."""
    path = f"{_base(recovery)}/verify"
    found = give_shares(session, source, nonce, path, path)
    if found.get("complete"):
        session.show(found, fields({"Nonce": found.get("nonce"), "Complete": True}))
        session.say("The new shares have replaced the old ones.")
    else:
        session.show(found, fields(_shown(found)))


@rekey.command()
@_recovery
@with_session
def status(session: Session, recovery: bool) -> None:
    """Tell how far it is."""
    with session.client(anonymous=True) as client:
        found = client.read(f"{_base(recovery)}/init").data
    session.show(found, progress_table(found))


@rekey.command()
@_recovery
@with_session
def cancel(session: Session, recovery: bool) -> None:
    """Give it up (needs a token with sudo); the present shares stay."""
    with session.client() as client:
        client.delete(f"{_base(recovery)}/init")
    session.say("Given up; the shares are what they were.")


def progress_table(found: Mapping[str, Any]) -> Table:
    """Show people how far a rekey is."""
    if not found.get("started"):
        return fields({"Started": False, "Shares needed": found.get("required")})
    shown = _shown(found) | {"Verification": found.get("verification_required")}
    if found.get("verification_nonce"):
        shown["Verification nonce"] = found["verification_nonce"]
    return fields(shown)


def _shown(found: Mapping[str, Any]) -> dict[str, Any]:
    needed = found.get("required", found.get("t"))
    return {
        "Started": found.get("started"),
        "Nonce": found.get("nonce"),
        "Progress": f"{found.get('progress', 0)} of {needed} shares",
        "New shares": f"{found.get('t')} of {found.get('n')}",
    }


def _base(recovery: bool) -> str:
    return "sys/rekey-recovery-key" if recovery else "sys/rekey"
