"""``secrethub operator slot``: what opens the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cluster.cli.attempts import give as give_shares
from cluster.cli.attempts import shares_option
from cluster.cli.output import Table, fields
from cluster.cli.seal import keys_table
from cluster.cli.session import Session, with_session

_PATH = "sys/seal/slots"


@click.group()
def slot() -> None:
    """List, test, add and remove unseal slots: shares, and keys of AWS, Google and Azure.

    Any one slot opens the cluster. A change is begun by somebody with a token that has sudo, and is made
    when enough holders of shares `give` theirs.
    """


@slot.command("list")
@with_session
def list_(session: Session) -> None:
    """List the slots."""
    with session.client() as client:
        found = client.read(_PATH).data
    slots: Mapping[str, Any] = found.get("key_info") or {}
    rows = tuple((name, shown.get("type"), _about(shown)) for name, shown in slots.items())
    session.show(found, Table(columns=("Slot", "Type", ""), rows=rows))


@slot.command()
@click.argument("slot_id", metavar="SLOT")
@with_session
def test(session: Session, slot_id: str) -> None:
    """Show that a key service opens its slot now. Nothing is changed."""
    with session.client() as client:
        client.write(f"{_PATH}/{slot_id}/test", {})
    session.say("It opens.")


@slot.command()
@click.argument("kind", metavar="TYPE", type=click.Choice(["awskms", "gcpckms", "azurekeyvault", "shamir"]))
@click.option(
    "--service", metavar="NAME", help="Name of the key in the nodes' settings, [key_services.NAME]."
)
@click.option("--shares", type=int, default=5, show_default=True, help="For shamir: shares to make.")
@click.option("--threshold", type=int, default=3, show_default=True, help="For shamir: shares needed.")
@with_session
def add(session: Session, kind: str, service: str | None, shares: int, threshold: int) -> None:
    """Begin to add a slot (needs a token with sudo). Tell the nonce to those who give shares."""
    body: dict[str, Any] = {"type": kind}
    if kind == "shamir":
        body |= {"secret_shares": shares, "secret_threshold": threshold}
    elif service:
        body["service"] = service
    else:
        raise click.UsageError("--service: which key in the nodes' settings?")
    with session.client() as client:
        found = client.write(_PATH, body).data
    session.show(found, _progress(found))


@slot.command()
@click.argument("slot_id", metavar="SLOT")
@with_session
def remove(session: Session, slot_id: str) -> None:
    """Begin to remove a slot (needs a token with sudo). Tell the nonce to those who give shares.

    Without their slot, shares go on deciding: they are recovery shares then.
    """
    with session.client() as client:
        found = client.delete(f"{_PATH}/{slot_id}").data
    session.show(found, _progress(found))


@slot.command()
@shares_option
@with_session
def give(session: Session, source: str | None, nonce: str | None) -> None:
    """Give shares; with the last one needed the change is made."""
    found = give_shares(session, source, nonce, f"{_PATH}/attempt", f"{_PATH}/update")
    if not found.get("complete"):
        session.show(found, _progress(found))
        return
    tables = [fields({"Complete": True, "Slot": found.get("slot")})]
    if found.get("keys_base64"):
        tables.append(keys_table(found))
    session.show(found, *tables)


@slot.command()
@with_session
def status(session: Session) -> None:
    """Tell how far a change is."""
    with session.client(anonymous=True) as client:
        found = client.read(f"{_PATH}/attempt").data
    session.show(found, _progress(found))


@slot.command()
@with_session
def cancel(session: Session) -> None:
    """Give a change up (needs a token with sudo)."""
    with session.client() as client:
        client.delete(f"{_PATH}/attempt")
    session.say("Given up; the slots are what they were.")


def _about(shown: Mapping[str, Any]) -> str:
    if shown.get("service"):
        return str(shown["service"])
    leaving = ", leaving" if shown.get("leaving") else ""
    return f"{shown.get('threshold')} of {shown.get('shares')} shares{leaving}"


def _progress(found: Mapping[str, Any]) -> Table:
    return fields(
        {
            "Started": found.get("started"),
            "Nonce": found.get("nonce"),
            "Progress": f"{found.get('progress', 0)} of {found.get('required')} shares",
        }
    )
