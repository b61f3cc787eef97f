"""``secrethub token``: the caller's own token, others by accessor or file, and children of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cluster.cli.inputs import read_pairs, read_secret
from cluster.cli.output import Table, fields, names, text
from cluster.cli.session import Session, with_session

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from secrethub.client import Client

F = TypeVar("F", bound=Callable[..., Any])


def _other(command: F) -> F:
    """Let a command be about another token than the one in use."""
    command = click.option("--accessor", metavar="ACCESSOR", help="Of another token.")(command)
    return click.option(
        "--token-file", metavar="FILE", help="File with another token (- for standard input)."
    )(command)


@click.group()
def token() -> None:
    """Create, look up, renew and revoke tokens."""


@token.command()
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="A policy of the new token.")
@click.option("--ttl", metavar="DURATION", help="How long it lives, e.g. 20m.")
@click.option("--explicit-max-ttl", metavar="DURATION", help="Beyond which no renewal goes.")
@click.option("--period", metavar="DURATION", help="Lives on as long as it is renewed within this time.")
@click.option("--num-uses", type=click.IntRange(min=1), metavar="N", help="Good for so many requests.")
@click.option("--type", "kind", type=click.Choice(["service", "batch"]), help="batch: not stored.")
@click.option("--role", metavar="NAME", help="Make it as a token role says.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Shown by lookups.")
@click.option("--display-name", metavar="NAME", help="How the ledger calls it.")
@click.option("--orphan", is_flag=True, help="Does not end with the token in use.")
@click.option("--not-renewable", is_flag=True, help="Cannot be renewed.")
@click.option("--no-default-policy", is_flag=True, help="Without the policy `default`.")
@click.option("--plain", is_flag=True, help="Print the token alone.")
@with_session
def create(
    session: Session,
    /,
    policies: tuple[str, ...],
    meta: tuple[str, ...],
    kind: str | None,
    role: str | None,
    orphan: bool,
    not_renewable: bool,
    no_default_policy: bool,
    plain: bool,
    **given: Any,
) -> None:
    """Create a token, a child of the caller's.

    Without --policy it gets the caller's policies. The name of a policy that does not exist is taken with
    a warning and grants nothing until such a policy is written.
    """
    if role and orphan:
        raise click.UsageError("--orphan: a role says so itself")
    body = {name: value for name, value in given.items() if value is not None}
    if policies:
        body["policies"] = list(policies)
    if meta:
        body["meta"] = read_pairs(meta)
    if kind:
        body["type"] = kind
    if no_default_policy:
        body["no_default_policy"] = True
    if not_renewable:
        body["renewable"] = False
    path = f"create/{role}" if role else "create-orphan" if orphan else "create"
    with session.client() as client:
        reply = client.write(f"auth/token/{path}", body)
    session.warn(reply.warnings)
    made = reply.auth or {}
    if plain:
        click.echo(made.get("client_token"))
    else:
        shown = ("client_token", "accessor", "policies", "lease_duration", "renewable")
        session.show(made, fields({name: made.get(name) for name in shown}))


@token.command()
@_other
@with_session
def lookup(session: Session, accessor: str | None, token_file: str | None) -> None:
    """Show what the server knows about a token, by default the one in use."""
    path, body = _named("lookup", accessor, token_file)
    with _about(session, body) as client:
        found = (client.write(path, body) if body else client.read(path)).data
    session.show({name: value for name, value in found.items() if name != "id"})


@token.command()
@click.option("--increment", metavar="DURATION", help="How long it should live from now on.")
@_other
@with_session
def renew(session: Session, accessor: str | None, token_file: str | None, increment: str | None) -> None:
    """Renew a token, by default the one in use."""
    path, body = _named("renew", accessor, token_file)
    with _about(session, body) as client:
        reply = client.write(path, {**body, "increment": increment} if increment else body)
    session.warn(reply.warnings)
    found = reply.auth or {}
    session.show({name: found.get(name) for name in ("accessor", "policies", "lease_duration", "renewable")})


@token.command()
@click.option("--self", "own", is_flag=True, help="The token in use.")
@click.option("--leave-children", is_flag=True, help="With --token-file: what was made from it lives on.")
@_other
@with_session
def revoke(
    session: Session, accessor: str | None, token_file: str | None, own: bool, leave_children: bool
) -> None:
    """Revoke a token and everything made from it."""
    path, body = _named("revoke", accessor, token_file)
    if own == bool(body):
        raise click.UsageError("say which token: one of --self, --accessor and --token-file")
    if leave_children:
        if "token" not in body:
            raise click.UsageError("--leave-children wants --token-file")
        path = "auth/token/revoke-orphan"
    with _about(session, body) as client:
        client.write(path, body)
    session.say("Revoked.")


@token.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@_other
@with_session
def capabilities(
    session: Session, paths: tuple[str, ...], accessor: str | None, token_file: str | None
) -> None:
    """Show what a token may do with paths, by default the one in use."""
    path, body = _named("capabilities", accessor, token_file, below="sys/")
    with _about(session, body) as client:
        found = client.write(path, {**body, "paths": list(paths)}).data
    told = {name: found.get(name) for name in paths}
    session.show(
        told,
        Table(columns=("Path", "Capabilities"), rows=tuple((name, text(told[name])) for name in told)),
    )


@token.command()
@with_session
def accessors(session: Session) -> None:
    """List the accessors of all tokens (needs sudo)."""
    with session.client() as client:
        found = client.list("auth/token/accessors")
    session.show(list(found), names(found, "Accessor"))


def _named(
    operation: str, accessor: str | None, token_file: str | None, *, below: str = "auth/token/"
) -> tuple[str, dict[str, Any]]:
    """Return the path and body of an operation on the token that the options name."""
    if accessor is not None and token_file is not None:
        raise click.UsageError("give --accessor or --token-file")
    if accessor is not None:
        return f"{below}{operation}-accessor", {"accessor": accessor}
    if token_file is not None:
        return f"{below}{operation}", {"token": read_secret("Token", token_file)}
    return f"{below}{operation}-self", {}


def _about(session: Session, other: dict[str, Any]) -> AbstractContextManager[Client]:
    """Open a client for a request that asks for nothing but its token itself, or for another one."""
    from cluster.cli.failures import ABOUT_ITSELF

    return session.client(advice=None if other else {"permission_denied": ABOUT_ITSELF})
