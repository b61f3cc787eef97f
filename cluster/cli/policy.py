"""``secrethub policy``: what tokens and agents may do."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.bindings import bind, bindings, unbind
from cluster.cli.inputs import read_text
from cluster.cli.output import Table, fields, names
from cluster.cli.policy_passwords import password
from cluster.cli.policy_replay import replay
from cluster.cli.policy_templates import template
from cluster.cli.session import Session, is_there, with_session

_MOUNT = "sys/policies/acl"


@click.group()
def policy() -> None:
    """Read and write policies."""


for command in (bind, unbind, bindings, template, replay, password):
    policy.add_command(command)


@policy.command()
@click.argument("name")
@click.argument("source", metavar="FILE")
@with_session
def write(session: Session, name: str, source: str) -> None:
    """Write a policy from a FILE (- for standard input).

    Takes SecretHub's own documents, and Vault's ACL in HCL and JSON.
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


@policy.command("test")
@click.argument("path")
@click.argument("capability", default="read")
@click.option("--policy", "names_", multiple=True, help="A policy that is written; may be repeated.")
@click.option(
    "--file", "files", multiple=True, metavar="FILE", help="A policy to try (- for standard input)."
)
@click.option("--client-address", help="Where the request comes from; unknown by default.")
@click.option("--at", help="When, such as 2030-01-31T23:00:00Z; now by default.")
@click.option("--token-ttl", help="How long the token lives in all, such as 1h; 0 for ever.")
@click.option(
    "--asked-wrap-ttl", help="How long the request asks its answer to be wrapped; not at all by default."
)
@click.option("--agent-id", help="The id of the agent that asks; no agent by default.")
@click.option("--agent-name", help="Its name.")
@click.option(
    "--application-policy",
    "of_application",
    multiple=True,
    help="A written policy of the application that the agent asks for; may be repeated.",
)
@with_session
def test_(
    session: Session,
    /,
    path: str,
    capability: str,
    names_: tuple[str, ...],
    files: tuple[str, ...],
    agent_id: str | None,
    agent_name: str | None,
    of_application: tuple[str, ...],
    asked_wrap_ttl: str | None,
    **circumstances: str | None,
) -> None:
    """Tell what policies would decide about CAPABILITY on PATH, and by which rules.

    CAPABILITY is create, read, update, patch, delete or list. Exits with 1 when it is denied.
    """
    if not names_ and not files:
        raise click.UsageError("name policies with --policy, or files to try with --file")
    body: dict[str, Any] = {"path": path, "capability": capability, "policies": list(names_)}
    body["documents"] = [read_text(source) for source in files]
    if asked_wrap_ttl is not None:
        body["wrap_ttl"] = asked_wrap_ttl
    if agent_id is not None or agent_name is not None:
        body["agent"] = {"id": agent_id or "", "name": agent_name or ""}
    if of_application:
        body["application_policies"] = list(of_application)
    body |= {name: value for name, value in circumstances.items() if value is not None}
    with session.client() as client:
        found = client.write("sys/policies/simulate", body).data
    columns = ("Policy", "Rule", "Says", "Capabilities", "Does not hold")
    rows = tuple(
        (
            step["policy"],
            step["rule"],
            step["effect"],
            ", ".join(step["capabilities"]),
            step["failing"] or "-",
        )
        for step in found["trace"]
    )
    verdict = {"Verdict": "allowed" if found["allowed"] else "denied", "Reason": found["reason"] or "-"}
    session.show(found, fields(verdict), Table(columns=columns, rows=rows))
    if not found["allowed"]:
        raise SystemExit(1)
