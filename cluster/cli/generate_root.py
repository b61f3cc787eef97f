"""``secrethub operator generate-root``: a root token for whoever has none, with enough shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cluster.cli.attempts import give as give_shares
from cluster.cli.attempts import shares_option
from cluster.cli.inputs import read_secret
from cluster.cli.output import Table, fields
from cluster.cli.session import Session, with_session

_PATH = "sys/generate-root/attempt"
_ON_A_NODE = {
    "permission_denied": "this is begun and given up on a node itself: "
    "run it there with --address http://127.0.0.1:4000"
}


@click.group()
def generate_root() -> None:
    """Make a root token, with enough shares. No token is needed.

    Somebody on a node starts it and keeps the one-time password; the holders of shares `give` theirs; the
    last of them gets the token in a form that only the one-time password opens, with `decode`.
    """


@generate_root.command()
@with_session
def start(session: Session) -> None:
    """Begin, on a node itself. Keep the one-time password; tell the nonce to those who give shares."""
    with session.client(anonymous=True, advice=_ON_A_NODE) as client:
        found = client.write(_PATH, {}).data
    session.show(found, _table({**found, "One-time password": found.get("otp")}))


@generate_root.command()
@shares_option
@with_session
def give(session: Session, source: str | None, nonce: str | None) -> None:
    """Give shares. Whoever gives the last one needed gets the encoded token."""
    found = give_shares(session, source, nonce, _PATH, "sys/generate-root/update")
    session.show(found, _table(found))
    if found.get("complete"):
        session.say("\n`operator generate-root decode` makes the token of it, with the one-time password.")


@generate_root.command()
@click.argument("encoded", metavar="ENCODED")
@click.option("--otp-file", metavar="FILE", help="File with the one-time password (- for stdin).")
@with_session
def decode(session: Session, encoded: str, otp_file: str | None) -> None:
    """Print the root token that ENCODED hides; asks for the one-time password. Asks no server."""
    from secrethub.errors import InvalidRequest
    from secrethub.seal.wishes import decode_token

    try:
        token = decode_token(encoded, read_secret("One-time password", otp_file))
    except InvalidRequest as exc:
        raise click.ClickException(str(exc)) from exc
    session.show({"token": token}, fields({"Token": token}))


@generate_root.command()
@with_session
def status(session: Session) -> None:
    """Tell how far it is."""
    with session.client(anonymous=True) as client:
        found = client.read(_PATH).data
    session.show(found, _table(found))


@generate_root.command()
@with_session
def cancel(session: Session) -> None:
    """Give it up, on a node itself."""
    with session.client(anonymous=True, advice=_ON_A_NODE) as client:
        client.delete(_PATH)
    session.say("Given up.")


def _table(found: Mapping[str, Any]) -> Table:
    shown: dict[str, Any] = {
        "Started": found.get("started"),
        "Nonce": found.get("nonce"),
        "Progress": f"{found.get('progress', 0)} of {found.get('required')} shares",
    }
    if found.get("complete"):
        shown["Encoded token"] = found.get("encoded_token")
    if found.get("One-time password"):
        shown["One-time password"] = found["One-time password"]
    return fields(shown)
