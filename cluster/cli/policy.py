"""``secrethub policy``: what tokens and agents may do."""

from __future__ import annotations

import click

from cluster.cli.inputs import read_text
from cluster.cli.output import names
from cluster.cli.session import Session, is_there, with_session

_MOUNT = "sys/policies/acl"


@click.group()
def policy() -> None:
    """Read and write policies."""


@policy.command()
@click.argument("name")
@click.argument("source", metavar="FILE")
@with_session
def write(session: Session, name: str, source: str) -> None:
    """Write a policy from a JSON FILE (- for standard input).

    Takes SecretHub's own documents and Vault's ACL in JSON.
    """
    document = read_text(source)
    with session.client() as client:
        reply = client.write(f"{_MOUNT}/{name}", {"policy": document})
    session.warn(reply.warnings)
    session.say(f"Policy {name} is written and in force.")


@policy.command()
@click.argument("name")
@with_session
def read(session: Session, name: str) -> None:
    """Print a policy's source."""
    with session.client() as client:
        found = client.read(f"{_MOUNT}/{name}").data
    if session.format == "table" and not found.get("policy"):
        session.note(f"The policy {name} has no document.{' It allows everything.' * (name == 'root')}")
    elif session.format == "table":
        click.echo(str(found.get("policy", "")).rstrip("\n"))
    else:
        session.show({"name": found.get("name", name), "policy": found.get("policy")})


@policy.command("list")
@with_session
def list_(session: Session) -> None:
    """List the policies' names."""
    with session.client() as client:
        found = client.list(_MOUNT)
    session.show(list(found), names(found))


@policy.command()
@click.argument("name")
@with_session
def delete(session: Session, name: str) -> None:
    """Delete a policy. What it allowed ends at once."""
    with session.client() as client:
        there = is_there(client, f"{_MOUNT}/{name}")
        client.delete(f"{_MOUNT}/{name}")
    session.say_deleted(f"policy {name}", there=there)
