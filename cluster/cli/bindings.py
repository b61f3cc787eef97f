"""``secrethub policy bind``, ``unbind`` and ``bindings``: policies for somebody beside his own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cluster.cli.output import Table, names
from cluster.cli.session import Session, with_session

F = TypeVar("F", bound=Callable[..., Any])
_PATH = "sys/policies/bindings"
_OPTIONS = "--role, --cert, --user, --agent, --application or --accessor"


def _subject(command: F) -> F:
    """Let a command be about one subject."""
    for option in (
        click.option("--role", metavar="NAME", help="Everything that logs in by this AppRole role."),
        click.option("--cert", metavar="NAME", help="Everything that logs in by this certificate role."),
        click.option("--user", metavar="NAME", help="A user with a password."),
        click.option("--agent", metavar="ID", help="An agent, by its id."),
        click.option("--application", metavar="NAME", help="An application, as agents name it."),
        click.option("--accessor", metavar="ACCESSOR", help="A token, by its accessor."),
    ):
        command = option(command)
    return command


def _named(**given: str | None) -> dict[str, str] | None:
    """Return the one subject that was given, or None."""
    body = {name: value for name, value in given.items() if value is not None}
    if len(body) > 1:
        raise click.UsageError(f"name one subject: {_OPTIONS}")
    return body or None


def _required(**given: str | None) -> dict[str, str]:
    body = _named(**given)
    if body is None:
        raise click.UsageError(f"name a subject: {_OPTIONS}")
    return body


@click.command()
@click.argument("policies", metavar="POLICY...", nargs=-1, required=True)
@_subject
@with_session
def bind(session: Session, /, policies: tuple[str, ...], **subject: str | None) -> None:
    """Bind policies to a role, user, agent, application or token. In force at once, on every node."""
    body = _required(**subject)
    with session.client() as client:
        for policy in policies:
            client.write(f"{_PATH}/{policy}", body)
    session.say(f"{_listed(policies)} bound.")


@click.command()
@click.argument("policies", metavar="POLICY...", nargs=-1, required=True)
@_subject
@with_session
def unbind(session: Session, /, policies: tuple[str, ...], **subject: str | None) -> None:
    """Take bound policies away. What they allowed ends at once."""
    body = _required(**subject)
    with session.client() as client:
        for policy in policies:
            client.write(f"{_PATH}/{policy}/remove", body)
    session.say(f"{_listed(policies)} no longer bound.")


@click.command()
@click.argument("policy", required=False)
@_subject
@with_session
def bindings(session: Session, /, policy: str | None, **subject: str | None) -> None:
    """Tell to whom POLICY is bound, what is bound to a subject, or which policies are bound at all."""
    body = _named(**subject)
    if policy is not None and body is not None:
        raise click.UsageError("name a policy or a subject")
    with session.client() as client:
        if body is not None:
            found = list(client.write("sys/policies/bound", body).data["policies"])
            session.show(found, names(found, "Policy"))
            return
        if policy is None:
            listed = list(client.list(_PATH))
            session.show(listed, names(listed, "Policy"))
            return
        reply = client.read(f"{_PATH}/{policy}")
    session.warn(reply.warnings)
    subjects = reply.data["subjects"]
    rows = tuple((one["kind"], one["name"], one.get("accessor", "-")) for one in subjects)
    session.show(subjects, Table(columns=("Kind", "Name", "Accessor"), rows=rows))


def _listed(policies: tuple[str, ...]) -> str:
    several = len(policies) > 1
    return f"{'Policies' if several else 'Policy'} {', '.join(policies)} {'are' if several else 'is'}"
