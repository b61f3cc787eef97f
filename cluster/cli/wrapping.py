"""``secrethub wrap`` and ``unwrap``: handing something to somebody, who notices if another one took it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import click

from cluster.cli.inputs import read_object, read_pairs, read_secret
from cluster.cli.output import fields
from cluster.cli.session import Session, with_session
from secrethub.sensitive import Sensitive

_SOURCE = "SECRETHUB_WRAPPING_TOKEN"


@click.command()
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "source", metavar="FILE", help="File with a JSON object (- for standard input).")
@click.option("--ttl", metavar="DURATION", help="How long it is kept, e.g. 10m [default: --wrap-ttl or 5m].")
@click.option("--plain", is_flag=True, help="Print the wrapping token alone.")
@with_session
def wrap(session: Session, pairs: tuple[str, ...], source: str | None, ttl: str | None, plain: bool) -> None:
    """Keep fields for whoever holds the token that this prints. It opens them once.

    A value is written key=@file or key=- (standard input) where it is secret.
    """
    del plain  # the session prints what is kept
    if bool(pairs) == (source is not None):
        raise click.UsageError("give fields, or --json FILE")
    body = read_pairs(pairs) if source is None else read_object(source)
    chosen = ttl or session.options.get("wrap_ttl") or "5m"
    asking = replace(session, options={**session.options, "wrap_ttl": chosen})
    with asking.client() as client:
        client.write("sys/wrapping/wrap", body)
    raise click.ClickException("the server's answer holds no wrapping token")


@click.command()
@click.option("--token-file", metavar="FILE", help="File with the wrapping token (- for standard input).")
@click.option("--field", metavar="NAME", help="Print one field alone.")
@click.option("--look", is_flag=True, help="Tell where it comes from and how old it is; do not open it.")
@with_session
def unwrap(session: Session, token_file: str | None, field: str | None, look: bool) -> None:
    """Open a wrapped answer. It can be opened once: if it is gone, somebody else has opened it.

    The wrapping token is asked for on a terminal, otherwise read from standard input; --token-file or
    SECRETHUB_WRAPPING_TOKEN name it, too. No other token is needed.
    """
    from cluster.cli.failures import explain
    from secrethub.client import Client, ClientError

    given = None if token_file else os.environ.get(_SOURCE)
    token = given or read_secret("Wrapping token", token_file)
    settings = replace(session.settings(anonymous=True), token=Sensitive(token), wrap_ttl=None)
    try:
        with Client(settings) as client:
            if look:
                reply = client.write("sys/wrapping/lookup", {"token": token})
            else:
                reply = client.write("sys/wrapping/unwrap")
    except ClientError as exc:
        raise click.ClickException(explain(exc, OPENED)) from exc
    session.warn(reply.warnings)
    found: dict[str, Any] = dict(reply.auth or reply.data)
    if field is None:
        session.show(found, fields(found))
    elif field in found:
        value = found[field]
        click.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    else:
        raise click.ClickException(f"it has no field {field!r}; it is opened now, and gone")


OPENED = {
    "permission_denied": "the wrapping token is unknown, has expired, or was used; "
    "if you did not use it, take what it opened for known to somebody else",
    "invalid_request": "it is unknown, has expired, or was used",
}
