"""``secrethub kv``: static secrets through the flat view.

A path is written ``prod/db``; the mount may stand before it (``secrets/prod/db``, or Vault's
``secret/prod/db``).
"""

from __future__ import annotations

import json
from typing import Any

import click

from cluster.cli.inputs import read_object, read_pairs
from cluster.cli.output import fields, names, text
from cluster.cli.session import Session, with_session


@click.group()
def kv() -> None:
    """Read and write static secrets."""


@kv.command()
@click.argument("path")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE | KEY=@FILE | KEY=-]...")
@click.option("--json", "source", metavar="FILE", help="Take all fields from a JSON object (- for stdin).")
@click.option(
    "--cas", type=int, metavar="VERSION", help="Write only if this is the newest version (0: none)."
)
@with_session
def put(session: Session, path: str, pairs: tuple[str, ...], source: str | None, cas: int | None) -> None:
    r"""Write a new version of a secret.

    \b
    secrethub kv put prod/db user=app password=-      password from standard input
    secrethub kv put prod/tls key=@server.key         a field from a file
    secrethub kv put prod/db --json secret.json       all fields, any JSON values
    """
    if bool(pairs) == bool(source):
        raise click.UsageError("give fields as key=value, or all of them with --json FILE")
    data = read_object(source) if source else read_pairs(pairs)
    body: dict[str, Any] = {"data": data}
    if cas is not None:
        body["options"] = {"cas": cas}
    with session.client() as client:
        reply = client.write(secret_path(path), body)
    session.warn(reply.warnings)
    session.show(reply.data)


@kv.command()
@click.argument("path")
@click.option("--version", type=int, metavar="N", help="An older version.")
@click.option("--field", metavar="KEY", help="Print this field's value alone.")
@with_session
def get(session: Session, path: str, version: int | None, field: str | None) -> None:
    """Read a secret."""
    with session.client() as client:
        found = client.read(secret_path(path), version=version).data
    data, metadata = found.get("data") or {}, found.get("metadata") or {}
    if field is not None:
        if field not in data:
            raise click.ClickException(f"{path} has no field {field!r}; it has: {', '.join(data) or 'none'}")
        click.echo(
            data[field] if isinstance(data[field], str) else json.dumps(data[field], ensure_ascii=False)
        )
        return
    about = {"Path": path, "Version": metadata.get("version"), "Created": metadata.get("created_time")}
    session.show(found, fields(about, "Metadata"), fields(data))


@kv.command("list")
@click.argument("path", default="")
@with_session
def list_(session: Session, path: str) -> None:
    """List the names below a path."""
    with session.client() as client:
        found = client.list(secret_path(path))
    session.show(list(found), names(found))


@kv.command()
@click.argument("path")
@with_session
def delete(session: Session, path: str) -> None:
    """Delete the newest version of a secret. Older versions stay."""
    with session.client() as client:
        client.delete(secret_path(path))
    session.say(f"Deleted the newest version of {text(path)}.")


def secret_path(path: str) -> str:
    """Return where the flat view has ``path``."""
    bare = path.strip("/")
    for mount in ("secrets", "secret"):
        if bare == mount or bare.startswith(mount + "/"):
            bare = bare[len(mount) :].lstrip("/")
            break
    return f"secrets/{bare}" if bare else "secrets"
