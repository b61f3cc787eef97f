"""What commands share that carry something out with shares: reading, giving and naming them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.seal import WRONG_SHARE, read_shares

if TYPE_CHECKING:
    from cluster.cli.session import Session
    from secrethub.client import Client


def shares_option(command: Any) -> Any:
    """Give a command the options about shares."""
    command = click.option(
        "--nonce", metavar="NONCE", help="The attempt that you were told of; by default the one under way."
    )(command)
    return click.option(
        "--file", "source", metavar="FILE", help="Read shares from a file, one a line (- for stdin)."
    )(command)


def give(
    session: Session, source: str | None, nonce: str | None, progress_path: str, path: str
) -> Mapping[str, Any]:
    """Give shares to an attempt until it is complete, and return the last answer.

    A line that holds no share of this cluster is named and passed over; the command ends with 1 then,
    unless the attempt is complete.

    Args:
        session: the command's.
        source: file with the shares.
        nonce: of the attempt; None for the one under way.
        progress_path: where its progress is read.
        path: where shares are given.

    Raises:
        click.ClickException: there is no attempt.
    """
    found: Mapping[str, Any] = {}
    wrong = 0
    with session.client(anonymous=True) as client:
        if nonce is None:
            nonce = _under_way(session, client, progress_path)
        for line, share in read_shares(source).items():
            answer = _given(client, path, line, {"key": share, "nonce": nonce})
            if answer is None:
                wrong += 1
                continue
            found = answer
            if found.get("complete"):
                return found
        found = found or client.read(progress_path).data
    if wrong:
        raise click.exceptions.Exit(1)
    return found


def _under_way(session: Session, client: Client, path: str) -> str:
    found = client.read(path).data
    if not found.get("nonce"):
        raise click.ClickException("nothing is under way that a share could be given to")
    session.note(f"Attempt {found['nonce']}: is that the one you were told of?")
    return str(found["nonce"])


def _given(client: Client, path: str, line: int, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    from cluster.cli.failures import explain
    from secrethub.client import ApiError

    try:
        return client.write(path, body).data
    except ApiError as exc:
        if exc.code not in WRONG_SHARE or "share" not in " ".join(exc.errors):
            raise
        click.echo(f"share in line {line}: {explain(exc)}" if line else explain(exc), err=True)
        return None
