"""What every command that talks to a server has: options, a client, a way to print and to fail.

Imports the HTTP client only when a request is made.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import click

from cluster.cli import token_file
from cluster.cli.output import Format, Table, render

if TYPE_CHECKING:
    from secrethub.client import Client, ClientSettings

_VARIABLES = (
    ("address", "ADDR"),
    ("ca_file", "CACERT"),
    ("ca_sha256", "CA_SHA256"),
    ("client_cert", "CLIENT_CERT"),
    ("client_key", "CLIENT_KEY"),
)
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One command's way to the server and to its reader.

    Attributes:
        options: ``address``, ``ca_file``, ``ca_sha256``, ``client_cert``, ``client_key``, ``wrap_ttl`` as
            given, None where not.
        format: how answers are printed.
    """

    options: Mapping[str, str | None]
    format: Format = "table"

    def settings(self, *, anonymous: bool = False) -> ClientSettings:
        """Return the client's settings: options first, then the environment, then the token file.

        Raises:
            click.ClickException: a value cannot work, or the token file is not private.
        """
        from secrethub.client import BadSettings, ClientSettings

        environ = dict(os.environ)
        for option, variable in _VARIABLES:
            if value := self.options.get(option):
                environ[f"SECRETHUB_{variable}"] = value
        if anonymous:
            environ.pop("SECRETHUB_TOKEN", None)
            environ.pop("VAULT_TOKEN", None)
        stored = None
        if not anonymous and not (environ.get("SECRETHUB_TOKEN") or environ.get("VAULT_TOKEN")):
            stored = token_file.load(token_file.location(environ))
        try:
            found = ClientSettings.from_environment(environ, token=stored)
            return replace(found, wrap_ttl=self.options.get("wrap_ttl"))
        except BadSettings as exc:
            raise click.ClickException(str(exc)) from exc

    @contextmanager
    def client(self, *, anonymous: bool = False, advice: Mapping[str, str] | None = None) -> Iterator[Client]:
        """Open a client; what goes wrong inside becomes one line for people.

        With ``--wrap-ttl`` the first answer with content ends the command: what is shown is how to open it,
        with the command's ``--plain`` the wrapping token alone.

        Args:
            anonymous: send no token (init, unseal, login, status).
            advice: what to do next, by the error's code, where it is not the usual.
        """
        from cluster.cli.failures import INITIALISE, NO_TOKEN, explain, while_uninitialised
        from cluster.cli.wrapped import Wrapped, WrappingClient
        from secrethub.client import ApiError, ClientError

        settings = self.settings(anonymous=anonymous)
        if settings.token is None and not anonymous and settings.endpoint.socket is None:
            raise click.ClickException(NO_TOKEN)
        try:
            with WrappingClient(settings) as client:
                try:
                    yield client
                except Wrapped as exc:
                    if click.get_current_context().params.get("plain"):
                        click.echo(exc.info["token"])
                    else:
                        self.show(exc.info)
                    raise click.exceptions.Exit(0) from None
                except ApiError as exc:
                    if while_uninitialised(exc, client):
                        advice = {**(advice or {}), "sealed": INITIALISE}
                    raise
        except ClientError as exc:
            raise click.ClickException(explain(exc, advice)) from exc

    def show(self, data: Any, *tables: Table) -> None:
        """Print an answer.

        Args:
            data: what JSON and YAML show.
            tables: what people see instead; by default a table of ``data``'s fields.
        """
        click.echo(render(data, self.format, tables))

    def say(self, sentence: str) -> None:
        """Tell people that something is done; other formats say it by their exit code."""
        if self.format == "table":
            click.echo(sentence)

    def say_deleted(self, what: str, *, there: bool | None) -> None:
        """Tell what a deletion did.

        Args:
            what: e.g. ``role web``.
            there: what :func:`is_there` found before it.
        """
        if there is False:
            self.note(f"There is no {what}.")
        else:
            self.say(f"{what[:1].upper()}{what[1:]} is deleted{', if there was one' * (there is None)}.")

    def note(self, sentence: str) -> None:
        """Say what people should know, beside the answer."""
        click.echo(sentence, err=True)

    def warn(self, warnings: Sequence[str]) -> None:
        """Print the server's warnings where they disturb no script."""
        for warning in warnings:
            click.echo(f"Warning: {warning}", err=True)


def is_there(client: Client, path: str, *, absent: str = "not_found") -> bool | None:
    """Look at what is to be deleted: the answer to a deletion does not tell. None: the token may not look.

    Args:
        client: asks.
        path: of what is to be deleted.
        absent: code of the answer when there is nothing.
    """
    from secrethub.client import ApiError

    try:
        client.read(path)
    except ApiError as exc:
        if exc.code == absent:
            return False
        if exc.code == "permission_denied":
            return None
        raise
    return True


def with_session(command: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Give a command the common options and its :class:`Session` as first argument."""
    return with_connection(
        click.option(
            "--format",
            "format_",
            type=click.Choice(["table", "json", "yaml"]),
            help="How to print the answer.",
        )(command)
    )


def with_connection(command: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """As :func:`with_session`, for a command that has no answer to print or a ``--format`` of its own."""

    @click.option("--address", metavar="URL", help="The server (SECRETHUB_ADDR).")
    @click.option("--ca-file", metavar="FILE", help="PEM file with the root to trust (SECRETHUB_CACERT).")
    @click.option("--ca-sha256", metavar="HEX", help="Fingerprint to trust (SECRETHUB_CA_SHA256).")
    @click.option("--wrap-ttl", metavar="DURATION", help="Keep the answer for whoever holds a token.")
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given: Mapping[str, Any] = click.get_current_context().find_root().obj or {}
        chosen = {name: kwargs.pop(name, None) or given.get(name) for name in _COMMON}
        session = Session(
            options={name: _text(chosen[name]) for name in _SETTINGS},
            format=cast("Format", chosen["format_"] or "table"),
        )
        return command(session, *args, **kwargs)

    return run


_SETTINGS = ("address", "ca_file", "ca_sha256", "wrap_ttl")
_COMMON = (*_SETTINGS, "format_")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
