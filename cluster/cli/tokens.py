"""``secrethub token``: the caller's own token and children of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cluster.cli.output import fields
from cluster.cli.session import Session, with_session

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from secrethub.client import Client


@click.group()
def token() -> None:
    """Create, look up, renew and revoke tokens."""


@token.command()
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="A policy of the new token.")
@click.option("--ttl", metavar="DURATION", help="How long it lives, e.g. 20m.")
@click.option("--display-name", metavar="NAME", help="How the ledger calls it.")
@click.option("--no-default-policy", is_flag=True, help="Without the policy `default`.")
@click.option("--plain", is_flag=True, help="Print the token alone.")
@with_session
def create(
    session: Session, /, policies: tuple[str, ...], plain: bool, no_default_policy: bool, **given: Any
) -> None:
    """Create a token, a child of the caller's.

    Without --policy it gets the caller's policies. The name of a policy that does not exist is taken as
    it is and grants nothing until such a policy is written.
    """
    body = {name: value for name, value in given.items() if value is not None}
    if policies:
        body["policies"] = list(policies)
    if no_default_policy:
        body["no_default_policy"] = True
    with session.client() as client:
        reply = client.write("auth/token/create", body)
    session.warn(reply.warnings)
    made = reply.auth or {}
    if plain:
        click.echo(made.get("client_token"))
    else:
        shown = ("client_token", "accessor", "policies", "lease_duration", "renewable")
        session.show(made, fields({name: made.get(name) for name in shown}))


@token.command()
@with_session
def lookup(session: Session) -> None:
    """Show what the server knows about the token in use."""
    with _self(session) as client:
        found = client.read("auth/token/lookup-self").data
    session.show({name: value for name, value in found.items() if name != "id"})


@token.command()
@click.option("--increment", metavar="DURATION", help="How long it should live from now on.")
@with_session
def renew(session: Session, increment: str | None) -> None:
    """Renew the token in use."""
    with _self(session) as client:
        reply = client.write("auth/token/renew-self", {"increment": increment} if increment else {})
    session.warn(reply.warnings)
    found = reply.auth or {}
    session.show({name: found.get(name) for name in ("accessor", "policies", "lease_duration", "renewable")})


@token.command()
@with_session
def revoke(session: Session) -> None:
    """Revoke the token in use. Nobody can use it afterwards."""
    with _self(session) as client:
        client.write("auth/token/revoke-self")
    session.say("Revoked.")


def _self(session: Session) -> AbstractContextManager[Client]:
    """Open a client for a token that asks for nothing but itself."""
    from cluster.cli.failures import ABOUT_ITSELF

    return session.client(advice={"permission_denied": ABOUT_ITSELF})
