"""``secrethub approle``: identities for machines."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from cluster.cli.drafts import draft, keep
from cluster.cli.inputs import auth_mount
from cluster.cli.login import approle_login
from cluster.cli.output import fields, names
from cluster.cli.secret_ids import MOUNT, at, secret_ids
from cluster.cli.session import Session, is_there, with_session


@click.group()
@click.option(
    "--mount",
    default="approle",
    show_default=True,
    metavar="PATH",
    callback=auth_mount,
    help="Of the auth method.",
)
@click.pass_context
def approle(ctx: click.Context, mount: str) -> None:
    """Roles, RoleIDs and SecretIDs for machines."""
    ctx.meta[MOUNT] = mount


@approle.command()
@click.argument("role")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="A policy of the role's tokens.")
@click.option("--token-ttl", metavar="DURATION", help="How long its tokens live, e.g. 1h.")
@click.option("--token-max-ttl", metavar="DURATION", help="How long they may be renewed for.")
@click.option("--token-period", metavar="DURATION", help="They live on as long as they are renewed in time.")
@click.option("--token-num-uses", type=int, metavar="N", help="Requests each is good for (0: any number).")
@click.option("--token-type", type=click.Choice(["service", "batch"]), help="batch: not stored.")
@click.option("--secret-id-ttl", metavar="DURATION", help="How long its SecretIDs can be used.")
@click.option(
    "--secret-id-num-uses", type=int, metavar="N", help="Logins a SecretID is good for (0: any number)."
)
@click.option("--bound-cidr", "cidrs", multiple=True, metavar="CIDR", help="A network logins may come from.")
@click.option(
    "--token-bound-cidr",
    "token_cidrs",
    multiple=True,
    metavar="CIDR",
    help="A network its tokens are good from.",
)
@click.option(
    "--bind-secret-id/--no-secret-id",
    "bind_secret_id",
    default=None,
    help="Whether a login needs a SecretID; without one networks must be bound.",
)
@click.option(
    "--no-default-policy/--default-policy",
    "token_no_default_policy",
    default=None,
    help="Whether its tokens go without the policy `default`, which lets them enrol an agent.",
)
@with_session
def write(
    session: Session,
    /,
    role: str,
    policies: tuple[str, ...],
    cidrs: tuple[str, ...],
    token_cidrs: tuple[str, ...],
    **given: Any,
) -> None:
    """Create or change a role. What is not named stays as it is."""
    body = {name: value for name, value in given.items() if value is not None}
    if policies:
        body["token_policies"] = list(policies)
    if cidrs:
        body["secret_id_bound_cidrs"] = list(cidrs)
    if token_cidrs:
        body["token_bound_cidrs"] = list(token_cidrs)
    with session.client() as client:
        reply = client.write(at(f"role/{role}"), body)
    session.warn(reply.warnings)
    session.say(f"Role {role} is written.")


@approle.command()
@click.argument("role")
@with_session
def read(session: Session, role: str) -> None:
    """Show a role."""
    with session.client() as client:
        found = client.read(at(f"role/{role}")).data
    session.show(found)


@approle.command("list")
@with_session
def list_(session: Session) -> None:
    """List the roles' names."""
    with session.client() as client:
        found = client.list(at("role"))
    session.show(list(found), names(found))


@approle.command()
@click.argument("role")
@with_session
def delete(session: Session, role: str) -> None:
    """Delete a role with its SecretIDs."""
    with session.client() as client:
        there = is_there(client, at(f"role/{role}"))
        client.delete(at(f"role/{role}"))
    session.say_deleted(f"role {role}", there=there)


@approle.command("role-id")
@click.argument("role")
@click.option("--plain", is_flag=True, help="Print the RoleID alone.")
@with_session
def role_id(session: Session, role: str, plain: bool) -> None:
    """Show a role's RoleID. It names the role and is not secret."""
    with session.client() as client:
        found = client.read(at(f"role/{role}/role-id")).data
    if plain:
        click.echo(found.get("role_id"))
    else:
        session.show(found)


@approle.command("secret-id")
@click.argument("role")
@click.option("--ttl", metavar="DURATION", help="How long it can be used, never longer than the role says.")
@click.option(
    "--num-uses", type=int, metavar="N", help="Logins it is good for, never more than the role says."
)
@click.option(
    "--bound-cidr", "cidrs", multiple=True, metavar="CIDR", help="A network its logins may come from."
)
@click.option(
    "--out", metavar="FILE", type=Path, help="Write the SecretID there (0600) instead of printing it."
)
@click.option("--plain", is_flag=True, help="Print the SecretID alone.")
@with_session
def secret_id(
    session: Session, /, role: str, out: Path | None, plain: bool, cidrs: tuple[str, ...], **given: Any
) -> None:
    """Make a SecretID, the secret half of a machine's login."""
    body = {name: value for name, value in given.items() if value is not None}
    if cidrs:
        body["cidr_list"] = list(cidrs)
    with draft(out) if out is not None else nullcontext() as place:
        with session.client() as client:
            reply = client.write(at(f"role/{role}/secret-id"), body)
        session.warn(reply.warnings)
        made = dict(reply.data)
        if place is not None:
            keep(place, str(made.pop("secret_id")).encode() + b"\n")
    if out is not None:
        session.show(made, fields({"SecretID": f"written to {out}", **made}))
    elif plain:
        click.echo(made.get("secret_id"))
    else:
        session.show(made)


@approle.command()
@click.option("--role-id", required=True, metavar="ID")
@click.option("--secret-id-file", metavar="FILE", help="File with the SecretID (- for standard input).")
@click.option("--wrapped-from", metavar="PATH", help="The file holds a wrapping token made at this path.")
@with_session
def login(session: Session, role_id: str, secret_id_file: str | None, wrapped_from: str | None) -> None:
    """Log in as a machine and print the token. `secrethub login --method approle` stores it instead."""
    mount = click.get_current_context().meta[MOUNT]
    session.show(approle_login(session, role_id, secret_id_file, mount=mount, wrapped_from=wrapped_from))


approle.add_command(secret_ids)
