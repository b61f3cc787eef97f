"""``secrethub policy template``: policies from the catalogue."""

from __future__ import annotations

import click

from cluster.cli.output import Table, fields, render, text
from cluster.cli.session import Session, with_session

_PATH = "sys/policies/templates"


@click.group()
def template() -> None:
    """Make policies from templates."""


@template.command("list")
@with_session
def list_(session: Session) -> None:
    """List the templates."""
    with session.client() as client:
        found = {name: client.read(f"{_PATH}/{name}").data["about"] for name in client.list(_PATH)}
    session.show(found, fields(found, "Name", "What its policies do"))


@template.command()
@click.argument("name")
@with_session
def show(session: Session, name: str) -> None:
    """Show what a template asks for."""
    with session.client() as client:
        found = client.read(f"{_PATH}/{name}").data
    rows = tuple(
        (
            one["name"],
            "required" if one["required"] else text(one["default"]) or "-",
            "several" if one["many"] else "one",
            one["about"],
        )
        for one in found["parameters"]
    )
    columns = ("Parameter", "Default", "Values", "What it is")
    session.show(found, Table(columns=columns, rows=rows))


@template.command("apply")
@click.argument("name")
@click.argument("parameters", metavar="KEY=VALUE...", nargs=-1)
@click.option("--name", "policy", metavar="POLICY", help="The policy to write.")
@click.option("--dry-run", is_flag=True, help="Print the document, write nothing.")
@with_session
def apply_(
    session: Session, name: str, parameters: tuple[str, ...], policy: str | None, dry_run: bool
) -> None:
    r"""Write a policy from a template. Give a key several times for several values.

    \b
    secrethub policy template apply read-only paths='secrets/web/**' paths=secrets/shared --name web
    """
    if (policy is None) is not dry_run:
        raise click.UsageError("name the policy with --name, or give --dry-run")
    with session.client() as client:
        document = client.write(f"{_PATH}/{name}", {"parameters": _parsed(parameters)}).data["policy"]
        if policy is not None:
            session.warn(client.write(f"sys/policies/acl/{policy}", {"policy": document}).warnings)
    if policy is not None:
        session.say(f"Policy {policy} is written and in force.")
    else:
        click.echo(render(document, "json" if session.format == "table" else session.format))


def _parsed(parameters: tuple[str, ...]) -> dict[str, str | list[str]]:
    """Return values by key; a list where a key was given several times."""
    found: dict[str, list[str]] = {}
    for parameter in parameters:
        key, separator, value = parameter.partition("=")
        if not separator or not key:
            raise click.UsageError(f"{parameter!r} is not KEY=VALUE")
        found.setdefault(key, []).append(value)
    return {key: values if len(values) > 1 else values[0] for key, values in found.items()}
