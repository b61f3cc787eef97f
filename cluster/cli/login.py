"""``secrethub login``: prove who you are, keep the token for later commands."""

from __future__ import annotations

import os
from typing import Any

import click

from cluster.cli import token_file
from cluster.cli.inputs import read_secret
from cluster.cli.output import fields
from cluster.cli.session import Session, with_session
from secrethub.sensitive import Sensitive


@click.command()
@click.option("--method", type=click.Choice(["token", "approle"]), default="token", show_default=True)
@click.option("--role-id", metavar="ID", help="RoleID, for --method approle.")
@click.option("--secret-id-file", metavar="FILE", help="File with the SecretID (- for standard input).")
@click.option("--no-store", is_flag=True, help="Print the token instead of storing it.")
@with_session
def login(
    session: Session, method: str, role_id: str | None, secret_id_file: str | None, no_store: bool
) -> None:
    """Log in and store the token for later commands.

    The token or SecretID is asked for on a terminal, otherwise read from standard input. The token is
    kept in ~/.secrethub/token (SECRETHUB_TOKEN_FILE), readable by you alone.
    """
    if method == "approle":
        if not role_id:
            raise click.UsageError("--method approle needs --role-id")
        auth = approle_login(session, role_id, secret_id_file)
    else:
        auth = _token_login(session)
    token = auth.pop("client_token")
    if no_store:
        click.echo(token)
        return
    place = token_file.location(os.environ)
    token_file.store(place, token)
    session.show(auth, fields({"Token": f"stored in {place}", **{_label(k): v for k, v in auth.items()}}))
    if overriding := next(
        (name for name in ("SECRETHUB_TOKEN", "VAULT_TOKEN") if os.environ.get(name)), None
    ):
        session.warn([f"{overriding} is set and goes before the stored token"])


def approle_login(session: Session, role_id: str, secret_id_file: str | None) -> dict[str, Any]:
    """Log in as a machine and return what `login` keeps and shows."""
    secret_id = read_secret("SecretID", secret_id_file)
    with session.client(anonymous=True) as client:
        reply = client.write("auth/approle/login", {"role_id": role_id, "secret_id": secret_id})
    session.warn(reply.warnings)
    found = reply.auth or {}
    if not isinstance(found.get("client_token"), str):
        raise click.ClickException("the server's answer holds no token")
    return {
        name: found.get(name)
        for name in ("client_token", "accessor", "policies", "lease_duration", "renewable")
    }


def _token_login(session: Session) -> dict[str, Any]:
    from dataclasses import replace

    from cluster.cli.failures import ABOUT_ITSELF, explain
    from secrethub.client import Client, ClientError

    token = read_secret("Token")
    settings = replace(session.settings(anonymous=True), token=Sensitive(token))
    try:
        with Client(settings) as client:
            found = client.read("auth/token/lookup-self").data
    except ClientError as exc:
        raise click.ClickException(explain(exc, {"permission_denied": ABOUT_ITSELF})) from exc
    return {
        "client_token": token,
        "accessor": found.get("accessor"),
        "policies": found.get("policies"),
        "lease_duration": found.get("ttl"),
        "renewable": found.get("renewable"),
    }


def _label(name: str) -> str:
    return {"lease_duration": "Seconds left (0: no end)"}.get(name, name.capitalize())
