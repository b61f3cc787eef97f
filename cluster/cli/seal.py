"""``secrethub operator init``, ``unseal`` and ``seal``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.drafts import draft
from cluster.cli.inputs import read_secret, read_text
from cluster.cli.output import Table, fields
from cluster.cli.session import Session, with_session
from cluster.cli.status import seal_table

if TYPE_CHECKING:
    from secrethub.client import Client

WRONG_SHARE = frozenset({"wrong_share", "invalid_request"})
"""What the server answers to a share that is none of its own; anything else concerns all of them."""

_FIELDS = {
    "shares": "secret_shares",
    "threshold": "secret_threshold",
    "recovery_shares": "recovery_shares",
    "recovery_threshold": "recovery_threshold",
    "service": "service",
}
"""Option → field of the request."""


@click.command()
@click.option("--shares", type=int, help="Shares the unseal key is split into.  [default: 5]")
@click.option("--threshold", type=int, help="Shares needed to unseal.  [default: 3]")
@click.option("--recovery-shares", type=int, help="Let a key service unseal; make recovery shares instead.")
@click.option("--recovery-threshold", type=int, help="Recovery shares needed to decide.")
@click.option("--service", metavar="NAME", help="The key service, where the settings have several.")
@click.option("--init-token-file", metavar="FILE", help="One-time token for init from another machine.")
@click.option("--out", metavar="FILE", type=Path, help="Write keys and token there (JSON, 0600), not here.")
@with_session
def init(
    session: Session, /, init_token_file: str | None, out: Path | None, **numbers: int | str | None
) -> None:
    """Initialise the cluster: make its keys and the root token.

    The shares and the root token are shown once and kept nowhere. Give each share to another person.

    With --recovery-shares or --service a key in the servers' settings ([key_services]) opens the cluster, now
    and whenever all servers were down. Recovery shares open nothing; they decide, as unseal shares do.
    """
    body: dict[str, Any] = {_FIELDS[name]: value for name, value in numbers.items() if value is not None}
    if init_token_file:
        body["init_token"] = read_secret("Init token", init_token_file)
    if out is not None and out.exists():
        raise click.ClickException(f"{out} exists; keys are not written over something else")
    with draft(out) if out is not None else nullcontext() as place:
        made = _initialised(session, body)
        if place is not None:
            try:
                place.keep(json.dumps(made, indent=2).encode() + b"\n")
            except OSError as exc:
                # Nobody can ask for them again.
                session.show(made, *_keys(made))
                raise click.ClickException(
                    f"{out}: {exc.strerror}; keys and root token are printed above, and are nowhere else"
                ) from exc
    if out is not None:
        session.say(f"Initialised. Keys and root token are in {out}; move them to where they belong.")
        return
    session.show(made, *_keys(made))
    if made.get("recovery_keys"):
        session.say("\nInitialised. The key service opens the cluster; the shares decide.")
        return
    shares, threshold = body.get("secret_shares", 5), body.get("secret_threshold", 3)
    session.say(
        f"\nInitialised, and sealed until {threshold} of {shares} shares are given to `operator unseal`."
    )


def _initialised(session: Session, body: Mapping[str, Any]) -> Mapping[str, Any]:
    from secrethub.client import ApiError

    with session.client(anonymous=True) as client:
        try:
            return client.write("sys/init", body).data
        except ApiError as exc:
            if exc.code != "permission_denied":
                raise
            raise click.ClickException(
                "the server lets nobody initialise it from here: do it on its own machine, or give the "
                "one-time token of the file that its setting init_token_file names (--init-token-file)"
            ) from exc


@click.command()
@click.option("--file", "source", metavar="FILE", help="Read shares from a file, one a line (- for stdin).")
@click.option("--reset", is_flag=True, help="Forget the shares given so far.")
@click.argument("refused", nargs=-1, metavar="")
@with_session
def unseal(session: Session, source: str | None, refused: tuple[str, ...], reset: bool) -> None:
    """Give unseal shares, base64 or hexadecimal.

    Asks for one share on a terminal; otherwise reads standard input, one share a line. A line that
    holds no share of this cluster is named and passed over; the exit code is 1 then.
    """
    if refused:
        raise click.UsageError(
            "a share on the command line can be read by every user of this machine: "
            "type it when asked, or pipe it in"
        )
    shares = {} if reset else read_shares(source)
    with session.client(anonymous=True) as client:
        found, wrong = (
            (client.write("sys/unseal", {"reset": True}).data, 0)
            if reset
            else give(client, "sys/unseal", shares)
        )
    session.show(found, seal_table(found))
    if wrong:
        raise click.exceptions.Exit(1)


@click.command()
@with_session
def seal(session: Session) -> None:
    """Seal the cluster: no secret is answered until it is unsealed again."""
    with session.client() as client:
        reply = client.write("sys/seal")
    session.warn(reply.warnings)
    session.say("Sealed.")


def give(client: Client, path: str, shares: Mapping[int, str]) -> tuple[Mapping[str, Any], int]:
    """Give shares until the seal is open; return its status and how many were wrong, each of them named."""
    from cluster.cli.failures import explain
    from secrethub.client import ApiError

    found: Mapping[str, Any] = {}
    wrong = 0
    for line, share in shares.items():
        try:
            found = client.write(path, {"key": share}).data
            if not found.get("sealed"):
                break
        except ApiError as exc:
            if exc.code not in WRONG_SHARE:
                raise
            wrong += 1
            click.echo(f"share in line {line}: {explain(exc)}" if line else explain(exc), err=True)
    return found or client.read("sys/seal-status").data, wrong


def read_shares(source: str | None) -> dict[int, str]:
    """Return line → share; line 0 is one that was typed. A file of `--out` is read, too."""
    if source is None and sys.stdin.isatty():
        return {0: read_secret("Unseal share")}
    text = read_text(source or "-")
    lines = _written(text) if text.lstrip().startswith("{") else text.splitlines()
    shares = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not shares:
        raise click.ClickException("no share was given")
    return shares


def _written(text: str) -> list[str]:
    """Return the shares in a file that `--out` wrote."""
    try:
        made = json.loads(text)
        found = made.get("keys_base64") or made.get("recovery_keys_base64") or []
        return [share for share in found if isinstance(share, str)]
    except (ValueError, TypeError, RecursionError):
        raise click.ClickException("the file is neither JSON with shares nor shares, one a line") from None


def keys_table(made: Mapping[str, Any]) -> Table:
    """Show shares to people."""
    kind = "Recovery share" if made.get("recovery_keys_base64") else "Share"
    keys = made.get("recovery_keys_base64") or made.get("keys_base64", ())
    return fields({f"{kind} {number}": share for number, share in enumerate(keys, 1)}, "Share", "Base64")


def _keys(made: Mapping[str, Any]) -> tuple[Table, Table]:
    return keys_table(made), fields({"Root token": made.get("root_token")})
