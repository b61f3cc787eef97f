"""``secrethub cert``: which client certificates log in, and with what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cluster.cli.inputs import auth_mount, read_text
from cluster.cli.output import names
from cluster.cli.session import Session, is_there, with_session

_LISTS = (
    ("--policy", "token_policies", "NAME", "A policy of the role's tokens."),
    ("--allowed-name", "allowed_names", "PATTERN", "A name of any kind that is let in, with * for any text."),
    ("--allowed-common-name", "allowed_common_names", "PATTERN", "A common name that is let in."),
    ("--allowed-dns-name", "allowed_dns_sans", "PATTERN", "A DNS name that is let in."),
    ("--allowed-email", "allowed_email_sans", "PATTERN", "An e-mail address that is let in."),
    ("--allowed-uri", "allowed_uri_sans", "PATTERN", "A URI that is let in."),
    ("--allowed-unit", "allowed_organizational_units", "PATTERN", "An organizational unit that is let in."),
    ("--required-extension", "required_extensions", "OID:PATTERN", "An extension that must be there."),
    (
        "--bound-cidr",
        "token_bound_cidrs",
        "CIDR",
        "A network that logins come from and tokens are good from.",
    ),
)


@click.group()
@click.option(
    "--mount",
    default="cert",
    show_default=True,
    metavar="PATH",
    callback=auth_mount,
    help="Of the auth method.",
)
@click.pass_context
def cert(ctx: click.Context, mount: str) -> None:
    """Roles of client certificates: who logs in with one, and with which policies."""
    ctx.meta["mount"] = mount


def _lists(command: Callable[..., Any]) -> Callable[..., Any]:
    for option, name, metavar, text in reversed(_LISTS):
        command = click.option(option, name, multiple=True, metavar=metavar, help=text)(command)
    return command


@cert.command()
@click.argument("role")
@click.option("--certificate", metavar="FILE", help="PEM file of the authority to trust, or of one client.")
@click.option("--pki", metavar="PATH", help="Trust the authority of this PKI mount, such as pki.")
@click.option("--display-name", metavar="NAME", help="What its tokens are called.")
@click.option("--token-ttl", metavar="DURATION", help="How long its tokens live, e.g. 1h.")
@click.option("--token-max-ttl", metavar="DURATION", help="How long they may be renewed for.")
@click.option("--token-period", metavar="DURATION", help="They live on as long as they are renewed in time.")
@click.option("--token-type", type=click.Choice(["service", "batch"]), help="batch: not stored.")
@_lists
@with_session
def write(session: Session, /, role: str, certificate: str | None, **given: Any) -> None:
    """Create or change a role. What is not named stays as it is."""
    body = {name: value for name, value in given.items() if value}
    if certificate is not None:
        body["certificate"] = read_text(certificate)
    with session.client() as client:
        reply = client.write(_place(role), body)
    session.warn(reply.warnings)
    session.say(f"Certificate role {role} is written.")


@cert.command()
@click.argument("role")
@with_session
def read(session: Session, role: str) -> None:
    """Show a role."""
    with session.client() as client:
        found = client.read(_place(role)).data
    session.show(found)


@cert.command("list")
@with_session
def list_(session: Session) -> None:
    """List the roles' names."""
    with session.client() as client:
        found = client.list(_place().rstrip("/"))
    session.show(list(found), names(found))


@cert.command()
@click.argument("role")
@with_session
def delete(session: Session, role: str) -> None:
    """Delete a role. Its tokens cannot be renewed any more."""
    with session.client() as client:
        there = is_there(client, _place(role))
        client.delete(_place(role))
    session.say_deleted(f"certificate role {role}", there=there)


def _place(role: str = "") -> str:
    return f"auth/{click.get_current_context().meta['mount']}/certs/{role}"
