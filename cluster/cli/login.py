"""``secrethub login``: prove who you are, keep the token for later commands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from cluster.cli import token_file
from cluster.cli.inputs import auth_mount, read_secret
from cluster.cli.output import fields
from cluster.cli.session import Session, with_session
from secrethub.sensitive import Sensitive

_METHODS = ("token", "approle", "userpass", "cert")


@click.command()
@click.option("--method", type=click.Choice(_METHODS), default="token", show_default=True)
@click.option("--mount", metavar="PATH", callback=auth_mount, help="Of the auth method [default: its name].")
@click.option("--username", metavar="NAME", help="For --method userpass.")
@click.option("--password-file", metavar="FILE", help="File with the password (- for standard input).")
@click.option("--role-id", metavar="ID", help="RoleID, for --method approle.")
@click.option("--secret-id-file", metavar="FILE", help="File with the SecretID (- for standard input).")
@click.option(
    "--wrapped-from",
    metavar="PATH",
    help="The SecretID's file holds a wrapping token that was made at this path.",
)
@click.option("--client-cert", metavar="FILE", help="PEM file with the certificate, for --method cert.")
@click.option("--client-key", metavar="FILE", help="PEM file with its key, if that is not in the same file.")
@click.option("--role", metavar="NAME", help="The certificate role, for --method cert [default: any].")
@click.option("--no-store", is_flag=True, help="Print the token instead of storing it.")
@with_session
def login(session: Session, /, method: str, no_store: bool, **given: str | None) -> None:
    """Log in and store the token for later commands.

    With a certificate, renewing the token shows it again: SECRETHUB_CLIENT_CERT and SECRETHUB_CLIENT_KEY.
    Token, password or SecretID are asked for on a terminal, otherwise read from standard input. The token
    is kept in ~/.secrethub/token (SECRETHUB_TOKEN_FILE), readable by you alone.
    """
    mount = given["mount"] or method
    if method == "approle":
        if not given["role_id"]:
            raise click.UsageError("--method approle needs --role-id")
        auth = approle_login(
            session,
            given["role_id"],
            given["secret_id_file"],
            mount=mount,
            wrapped_from=given["wrapped_from"],
        )
    elif method == "userpass":
        if not given["username"]:
            raise click.UsageError("--method userpass needs --username")
        body = {"password": read_secret("Password", given["password_file"])}
        auth = _login(session, f"auth/{mount}/login/{given['username']}", body)
    elif method == "cert":
        auth = _cert_login(session, mount, given)
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


def approle_login(
    session: Session,
    role_id: str,
    secret_id_file: str | None,
    *,
    mount: str = "approle",
    wrapped_from: str | None = None,
) -> dict[str, Any]:
    """Log in as a machine and return what `login` keeps and shows."""
    secret_id = read_secret("SecretID" if wrapped_from is None else "Wrapping token", secret_id_file)
    if wrapped_from is not None:
        secret_id = _unwrapped(session, secret_id, wrapped_from)
    return _login(session, f"auth/{mount}/login", {"role_id": role_id, "secret_id": secret_id})


def _cert_login(session: Session, mount: str, given: Mapping[str, str | None]) -> dict[str, Any]:
    files = {name: given[name] for name in ("client_cert", "client_key") if given[name]}
    shown = replace(session, options={**session.options, **files})
    settings = shown.settings(anonymous=True)
    if settings.client_cert is None:
        raise click.UsageError("--method cert needs --client-cert (or SECRETHUB_CLIENT_CERT)")
    if settings.endpoint.scheme != "https":
        raise click.ClickException("certificates are shown over TLS: name the server as https://…:4443")
    return _login(shown, f"auth/{mount}/login", {"name": given["role"]} if given["role"] else {})


def _login(session: Session, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    with session.client(anonymous=True) as client:
        reply = client.write(path, body)
    session.warn(reply.warnings)
    found = reply.auth or {}
    if not isinstance(found.get("client_token"), str):
        raise click.ClickException("the server's answer holds no token")
    return {
        name: found.get(name)
        for name in ("client_token", "accessor", "policies", "lease_duration", "renewable")
    }


def _unwrapped(session: Session, token: str, made_at: str) -> str:
    """Open a wrapped SecretID, unless its token says that it comes from elsewhere."""
    from cluster.cli.failures import explain
    from cluster.cli.wrapping import OPENED
    from secrethub.client import Client, ClientError

    settings = replace(session.settings(anonymous=True), token=Sensitive(token), wrap_ttl=None)
    try:
        with Client(settings) as client:
            made = client.write("sys/wrapping/lookup", {"token": token}).data.get("creation_path")
            if made != made_at.strip("/"):
                raise click.ClickException(
                    f"the wrapping token was made at {made}, not at {made_at}: swapped, so it stays closed"
                )
            found = client.write("sys/wrapping/unwrap").data.get("secret_id")
    except ClientError as exc:
        raise click.ClickException(explain(exc, OPENED)) from exc
    if not isinstance(found, str):
        raise click.ClickException("the wrapped answer holds no SecretID")
    return found


def _token_login(session: Session) -> dict[str, Any]:
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
