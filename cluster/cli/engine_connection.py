"""``secrethub engine connection``: where databases are, who we are there, and how they are."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.engine import delete_one, given, mounted, show_health, show_list, show_one, write_one
from cluster.cli.inputs import read_secret, read_text
from cluster.cli.session import Session, with_session


@click.group()
def connection() -> None:
    """Where databases are, who we are there, and how they are."""


@connection.command()
@click.argument("name")
@click.option("--plugin", "plugin_name", help="Kind of database [default: by the URL].")
@click.option("--url", "connection_url", help="postgresql://{{username}}:{{password}}@host:port/database")
@click.option(
    "--persistence-mode",
    type=click.Choice(["ACLFILE", "REWRITE", "NONE"]),
    help="How Redis keeps users [default: what there is].",
)
@click.option("--username", help="Ours at the database.")
@click.option("--password-file", metavar="FILE", help="Its password; - for standard input.")
@click.option("--ask", is_flag=True, help="Ask for the password.")
@click.option("--allow", "allowed_roles", multiple=True, help="Name of a role, * for any characters.")
@click.option("--tls-ca", metavar="FILE", help="PEM of who signs the database's certificate.")
@click.option("--tls-certificate", metavar="FILE", help="PEM of ours.")
@click.option("--private-key", metavar="FILE", help="PEM of its key.")
@click.option("--max-open-connections", type=click.IntRange(1, 100), help="Of each process [default: 4].")
@click.option("--scram-iterations", type=click.IntRange(1), help="Of verifiers [default: 4096].")
@click.option("--password-policy", help="Of the users that are made.")
@click.option("--username-template", help="How they are called, up to the part that is always there.")
@click.option("--stray-check", help="Between two searches for users without a lease [default: 1h; 0: none].")
@click.option("--remove-strays/--keep-strays", default=None, help="Remove those, or only tell of them.")
@click.option("--verify/--no-verify", "verify_connection", default=None, help="Try it before it is kept.")
@mounted
@with_session
def write(
    session: Session,
    /,
    name: str,
    mount: str,
    password_file: str | None,
    *,
    ask: bool,
    allowed_roles: tuple[str, ...],
    **options: Any,
) -> None:
    """Write the connection NAME. What is not named stays as it is."""
    body = given(options)
    for file in ("tls_ca", "tls_certificate", "private_key"):
        if file in body:
            body[file] = read_text(body[file])
    if ask or password_file is not None:
        body["password"] = read_secret("Password", password_file)
    if allowed_roles:
        body["allowed_roles"] = list(allowed_roles)
    if "connection_url" in body:
        scheme = body["connection_url"].partition(":")[0]
        kind = "redis" if scheme in {"redis", "rediss"} else "postgresql"
        body.setdefault("plugin_name", f"{kind}-database-plugin")
    write_one(session, mount, f"config/{name}", body, f"Connection {name} is written.")


@connection.command()
@click.argument("name")
@mounted
@with_session
def read(session: Session, mount: str, name: str) -> None:
    """Show a connection, without its password."""
    show_one(session, mount, f"config/{name}")


@connection.command("list")
@mounted
@with_session
def list_(session: Session, mount: str) -> None:
    """List the connections' names."""
    show_list(session, mount, "config")


@connection.command()
@click.argument("name")
@mounted
@with_session
def delete(session: Session, mount: str, name: str) -> None:
    """Delete a connection that no lease needs."""
    delete_one(session, mount, f"config/{name}", f"connection {name}")


@connection.command("rotate-root")
@click.argument("name")
@mounted
@with_session
def rotate_root(session: Session, mount: str, name: str) -> None:
    """Replace the password of a connection by one that only SecretHub has."""
    write_one(session, mount, f"rotate-root/{name}", {}, f"The password of {name} is replaced.")


@connection.command()
@click.argument("name")
@click.option("--check", is_flag=True, help="Ask the database now.")
@mounted
@with_session
def health(session: Session, mount: str, name: str, *, check: bool) -> None:
    """Show how a database was found lately by the node that answers."""
    show_health(session, mount, f"health/{name}", check=check)
