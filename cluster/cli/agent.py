"""``secrethub agent``: start this host's agent; look after enrolled ones."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cluster.cli.output import Table, fields, text
from cluster.cli.session import Session, with_session

if TYPE_CHECKING:
    from secrethub.client import Client

_COLUMNS = {
    "agent_id": "Agent",
    "name": "Name",
    "role": "Role",
    "status": "Status",
    "certificate_not_after": "Certificate until",
}


@click.group()
def agent() -> None:
    """Run an agent on this host, look after enrolled ones."""


@agent.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Run this host's agent. Becomes `secrethub-agent run` with the same arguments."""
    _become_agent("run", arguments)


@agent.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def check(arguments: tuple[str, ...]) -> None:
    """Check this host's agent.toml. Becomes `secrethub-agent check`."""
    _become_agent("check", arguments)


@agent.command("list")
@with_session
def list_(session: Session) -> None:
    """List the enrolled agents."""
    agents: list[dict[str, Any]] = []
    with session.client() as client:
        while page := _page(client, agents[-1]["agent_id"] if agents else None):
            agents += page
    shown = [{label: agent.get(name) for name, label in _COLUMNS.items()} for agent in agents]
    rows = tuple(tuple(text(value) for value in agent.values()) for agent in shown)
    session.show(agents, Table(columns=tuple(_COLUMNS.values()), rows=rows))


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@with_session
def show(session: Session, agent_id: str) -> None:
    """Show one agent, and which of its files are not up to date."""
    with session.client() as client:
        found = client.read(f"agents/{agent_id}").data
    report = found.get("report")
    shown = {name: value for name, value in found.items() if name != "report"}
    if report is None:
        session.show(found, fields(shown | {"files": None}))
        return
    files = {"files": report["files"], "failing": report["failing"], "since": report["since"]}
    tables = [fields(shown | files)]
    if report["failures"]:
        rows = tuple((one["destination"], one["error"] or "not written yet") for one in report["failures"])
        tables.append(Table(columns=("File", "What is wrong"), rows=rows))
    session.show(found, *tables)


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@with_session
def revoke(session: Session, agent_id: str) -> None:
    """Revoke an agent. Its connection ends, its certificate is worth nothing."""
    with session.client() as client:
        client.write(f"agents/{agent_id}/revoke")
    session.say(f"Agent {agent_id} is revoked.")


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@click.option("--role", metavar="NAME", help="The AppRole role it must enrol with [default: the one it has].")
@with_session
def approve(session: Session, agent_id: str, role: str | None) -> None:
    """Let an agent enrol once more. Within an hour, with another key under the same name."""
    with session.client() as client:
        reply = client.write(f"agents/{agent_id}/approve", {"role": role} if role else {})
    session.show(reply.data)


def _page(client: Client, after: str | None) -> list[dict[str, Any]]:
    """Return the agents that follow ``after``; nothing after the last."""
    from secrethub.client import ApiError
    from secrethub.client.messages import Request, nothing_listed

    query = {"list": "true"} | ({"after": after} if after else {})
    try:
        found = client.send(Request(method="GET", path="agents", query=query)).data
    except ApiError as exc:
        if nothing_listed(exc):
            return []
        raise
    return list((found.get("key_info") or {}).values())


def _become_agent(command: str, arguments: tuple[str, ...]) -> NoReturn:
    beside = Path(sys.executable).with_name("secrethub-agent")
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("secrethub-agent")
    if program is None:
        raise click.ClickException(
            "secrethub-agent is not installed beside this Python; "
            "in SecretHub's source folder run: pip install ."
        )
    sys.stdout.flush()
    os.execv(program, ["secrethub-agent", command, *arguments])  # noqa: S606 - our own program, no shell
