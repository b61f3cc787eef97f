"""``secrethub policy password``: what generated passwords look like."""

from __future__ import annotations

import click

from cluster.cli.inputs import read_text
from cluster.cli.output import names
from cluster.cli.session import Session, is_there, with_session

_PATH = "sys/policies/password"


@click.group()
def password() -> None:
    """Read and write policies of passwords, and make passwords after them."""


@password.command()
@click.argument("name")
@click.argument("source", metavar="FILE")
@with_session
def write(session: Session, name: str, source: str) -> None:
    r"""Write a password policy from a FILE (- for standard input), in HCL or JSON.

    \b
    length = 24
    rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" }
    rule "charset" { charset = "0123456789" min-chars = 2 }
    """
    document = read_text(source)
    with session.client() as client:
        reply = client.write(f"{_PATH}/{name}", {"policy": document})
    session.warn(reply.warnings)
    session.say(f"Password policy {name} is written and in force.")


@password.command()
@click.argument("name")
@with_session
def read(session: Session, name: str) -> None:
    """Print a password policy's source."""
    with session.client() as client:
        source = client.read(f"{_PATH}/{name}").data["policy"]
    if session.format == "table":
        click.echo(str(source).rstrip("\n"))
    else:
        session.show({"name": name, "policy": source})


@password.command("list")
@with_session
def list_(session: Session) -> None:
    """List the password policies' names."""
    with session.client() as client:
        found = client.list(_PATH)
    session.show(list(found), names(found))


@password.command()
@click.argument("name")
@with_session
def delete(session: Session, name: str) -> None:
    """Delete a password policy."""
    with session.client() as client:
        there = is_there(client, f"{_PATH}/{name}")
        client.delete(f"{_PATH}/{name}")
    session.say_deleted(f"password policy {name}", there=there)


@password.command()
@click.argument("name")
@with_session
def generate(session: Session, name: str) -> None:
    """Print a fresh password made after a policy. It is kept nowhere."""
    with session.client() as client:
        made = client.read(f"{_PATH}/{name}/generate").data
    if session.format == "table":
        click.echo(made["password"])
    else:
        session.show(made)
