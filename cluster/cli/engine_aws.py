"""``secrethub engine aws``: credentials of AWS, who we are there, and whom they are given to."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.engine import (
    delete_one,
    given,
    mounted_at,
    show_creds,
    show_health,
    show_list,
    show_one,
    show_strays,
    write_one,
)
from cluster.cli.inputs import read_object, read_secret
from cluster.cli.session import Session, with_session

_mounted = mounted_at("secrets/dynamic/aws")
_TYPES = ("assumed_role", "federation_token", "iam_user")


@click.group()
def aws() -> None:
    """Credentials of AWS: who we are there, roles, strays."""


@aws.group()
def root() -> None:
    """Who we are at AWS."""


@root.command("write")
@click.option("--access-key", metavar="ID", help="Of our key.")
@click.option("--secret-key-file", metavar="FILE", help="The key's secret half; - for standard input.")
@click.option("--ask", is_flag=True, help="Ask for the secret half.")
@click.option("--region", help="Of the services [default: us-east-1].")
@click.option("--iam-endpoint", metavar="URL", help="Instead of Amazon's own.")
@click.option("--sts-endpoint", metavar="URL", help="Likewise.")
@click.option("--max-retries", type=click.IntRange(-1, 2), help="Of a call; -1 for what is usual.")
@click.option("--username-template", help="How users are called, up to the part that is always there.")
@click.option("--stray-check", help="Between two searches for users without a lease [default: 1h; 0: none].")
@click.option("--remove-strays/--keep-strays", default=None, help="Remove those, or only tell of them.")
@_mounted
@with_session
def write_root(
    session: Session, /, mount: str, secret_key_file: str | None, *, ask: bool, **options: Any
) -> None:
    """Write who we are. What is not named stays as it is."""
    body = given(options)
    if ask or secret_key_file is not None:
        body["secret_key"] = read_secret("Secret key", secret_key_file)
    write_one(session, mount, "config/root", body, "Who we are at AWS is written.")


@root.command("read")
@_mounted
@with_session
def read_root(session: Session, mount: str) -> None:
    """Show who we are, without the secret half of the key."""
    show_one(session, mount, "config/root")


@root.command()
@_mounted
@with_session
def check(session: Session, mount: str) -> None:
    """Ask AWS who we are."""
    with session.client() as client:
        found = client.write(f"{mount.strip('/')}/config/check").data
    session.show(found)


@aws.command()
@click.option("--check", is_flag=True, help="Ask AWS now.")
@_mounted
@with_session
def health(session: Session, mount: str, *, check: bool) -> None:
    """Show how AWS was found lately by the node that answers."""
    show_health(session, mount, "health", check=check)


@root.command()
@_mounted
@with_session
def rotate(session: Session, mount: str) -> None:
    """Replace our key by one that only SecretHub has."""
    with session.client() as client:
        reply = client.write(f"{mount.strip('/')}/config/rotate-root")
    session.warn(reply.warnings)
    session.show(reply.data)


@aws.command()
@click.option("--ttl", "lease", metavar="DURATION", help="That they live to begin with; with --max-ttl.")
@click.option("--max-ttl", "lease_max", metavar="DURATION", help="That they live at most.")
@_mounted
@with_session
def lifetime(session: Session, mount: str, lease: str | None, lease_max: str | None) -> None:
    """Show how long users of IAM live, or write it."""
    if (lease is None) != (lease_max is None):
        raise click.UsageError("--ttl and --max-ttl are written together")
    if lease is None:
        show_one(session, mount, "config/lease")
    else:
        body = {"lease": lease, "lease_max": lease_max}
        write_one(session, mount, "config/lease", body, "How long users live is written.")


@aws.group()
def role() -> None:
    """Whom credentials are given to, and which."""


@role.command("write")
@click.argument("name")
@click.option("--type", "credential_type", type=click.Choice(_TYPES), help="Of the credentials.")
@click.option("--role-arn", "role_arns", multiple=True, metavar="ARN", help="A role of AWS to be assumed.")
@click.option("--policy-arn", "policy_arns", multiple=True, metavar="ARN", help="A managed policy.")
@click.option("--policy-file", metavar="FILE", help="A policy of IAM as JSON; - for standard input.")
@click.option("--group", "iam_groups", multiple=True, metavar="NAME", help="Of IAM, for users.")
@click.option("--tag", "iam_tags", multiple=True, metavar="KEY=VALUE", help="Of users.")
@click.option("--session-tag", "session_tags", multiple=True, metavar="KEY=VALUE", help="Of sessions.")
@click.option("--external-id", help="That the roles of AWS ask for.")
@click.option("--ttl", "default_sts_ttl", metavar="DURATION", help="That temporary credentials live.")
@click.option("--max-ttl", "max_sts_ttl", metavar="DURATION", help="That they live at most.")
@click.option("--boundary-arn", "permissions_boundary_arn", metavar="ARN", help="Bounds the rights of users.")
@click.option("--user-path", metavar="PATH", help="Of users.")
@_mounted
@with_session
def write_role(session: Session, /, name: str, mount: str, policy_file: str | None, **options: Any) -> None:
    """Write the role NAME. What is not named stays as it is."""
    body = {key: value for key, value in given(options).items() if value != ()}
    if policy_file is not None:
        body["policy_document"] = read_object(policy_file)
    write_one(session, mount, f"roles/{name}", body, f"Role {name} is written.")


@role.command("read")
@click.argument("name")
@_mounted
@with_session
def read_role(session: Session, mount: str, name: str) -> None:
    """Show a role."""
    show_one(session, mount, f"roles/{name}")


@role.command("list")
@_mounted
@with_session
def list_roles(session: Session, mount: str) -> None:
    """List the roles' names."""
    show_list(session, mount, "roles")


@role.command("delete")
@click.argument("name")
@_mounted
@with_session
def delete_role(session: Session, mount: str, name: str) -> None:
    """Delete a role; what was given out lives as long as its lease."""
    delete_one(session, mount, f"roles/{name}", f"role {name}")


@aws.command()
@click.argument("role")
@click.option("--role-arn", metavar="ARN", help="Which of the role's is assumed, if there are several.")
@click.option("--session-name", "role_session_name", help="What it is called in AWS's own logs.")
@click.option("--ttl", metavar="DURATION", help="That the credentials live, within the role's bounds.")
@_mounted
@with_session
def creds(session: Session, /, mount: str, role: str, **asked: str | None) -> None:
    """Have credentials of ROLE given out."""
    show_creds(session, mount, role, given(asked))


@aws.command()
@click.option("--remove", is_flag=True, help="Remove them, with their keys.")
@_mounted
@with_session
def strays(session: Session, mount: str, *, remove: bool) -> None:
    """Find users of this cluster that have no lease."""
    show_strays(session, mount, "strays", remove=remove)
