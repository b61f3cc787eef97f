"""``secrethub operator accept-restore``: go on with a database that was put back."""

from __future__ import annotations

import click

from cluster.cli.seal import give, read_shares
from cluster.cli.session import Session, with_session
from cluster.cli.status import seal_table


@click.command("accept-restore")
@click.option("--file", "source", metavar="FILE", help="Read shares from a file, one a line (- for stdin).")
@click.option("--reset", is_flag=True, help="Forget the shares given so far.")
@with_session
def accept_restore(session: Session, source: str | None, reset: bool) -> None:
    """Accept, with unseal shares, that the database was put back to an older or other state.

    A node that has seen a newer state seals the cluster (`secrethub status` says "Rolled back"). If you
    restored a backup, give as many shares as unseal. Every token and every SecretID is void then: make a root
    token with `operator generate-root`. Otherwise find out who did it.
    """
    shares = {} if reset else read_shares(source)
    with session.client(anonymous=True) as client:
        if reset:
            found, wrong = client.write("sys/accept-restore", {"reset": True}).data, 0
        else:
            found, wrong = give(client, "sys/accept-restore", shares)
    session.show(found, seal_table(found))
    if wrong:
        raise click.exceptions.Exit(1)
