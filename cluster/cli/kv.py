"""``secrethub kv``: static secrets through the flat view.

A path is written ``prod/db``; the mount may stand before it (``secrets/prod/db``, or Vault's
``secret/prod/db``). What concerns versions, metadata and finding secrets is in modules of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.inputs import read_object, read_pairs
from cluster.cli.kv_history import compare, destroy, history, rollback, undelete
from cluster.cli.kv_metadata import metadata
from cluster.cli.kv_path import advice_about, secret_path, store_path, version_numbers
from cluster.cli.kv_search import readers, search, unused
from cluster.cli.output import fields, names, visible
from cluster.cli.session import Session, with_session

if TYPE_CHECKING:
    from secrethub.client import Client


@click.group()
def kv() -> None:
    """Read and write static secrets."""


for _command in (undelete, destroy, history, compare, rollback, metadata, search, readers, unused):
    kv.add_command(_command)


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
    place, body = secret_path(path), _body(pairs, source, cas)
    with session.client() as client:
        reply = client.write(place, body)
    for advice in advice_about(path).values():
        session.note(f"The secret is called {visible(place.removeprefix('secrets/'))}: {advice}.")
    session.warn(reply.warnings)
    session.show(reply.data)


@kv.command()
@click.argument("path")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE | KEY=@FILE | KEY=-]...")
@click.option("--json", "source", metavar="FILE", help="Take a JSON merge patch (- for stdin).")
@click.option("--cas", type=int, metavar="VERSION", help="Write only if this is the newest version.")
@with_session
def patch(session: Session, path: str, pairs: tuple[str, ...], source: str | None, cas: int | None) -> None:
    r"""Change some fields of a secret; the others stay.

    \b
    secrethub kv patch prod/db password=-               one field from standard input
    echo '{"old": null}' | secrethub kv patch prod/db --json -   null removes a field
    """
    place, body = secret_path(path), _body(pairs, source, cas)
    with session.client() as client:
        reply = client.patch(place, body)
    session.warn(reply.warnings)
    session.show(reply.data)


@kv.command()
@click.argument("path")
@click.option("--version", type=int, metavar="N", help="An older version.")
@click.option("--field", metavar="KEY", help="Print this field's value alone.")
@with_session
def get(session: Session, path: str, version: int | None, field: str | None) -> None:
    """Read a secret."""
    place = secret_path(path)
    if field is not None and session.options.get("wrap_ttl"):
        raise click.UsageError("a wrapped answer has no fields: leave --wrap-ttl (SECRETHUB_WRAP_TTL) out")
    with session.client(advice=advice_about(path)) as client:
        found = client.read(place, version=version).data
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
        found = client.list(secret_path(path, whole=True))
    session.show(list(found), names(found))


@kv.command()
@click.argument("path")
@click.option("--versions", metavar="N,…", help="These versions instead of the newest.")
@with_session
def delete(session: Session, path: str, versions: str | None) -> None:
    """Delete the newest version of a secret. Older versions stay; kv undelete brings it back."""
    place = secret_path(path)
    if versions is not None:
        with session.client() as client:
            client.write(store_path("delete", path), {"versions": version_numbers(versions)})
        session.say(f"Deleted versions {versions} of {visible(path)}, as far as they were there.")
        return
    with session.client() as client:
        there = _newest(client, place)
        client.delete(place)
    if there is False:
        session.note(f"There is no secret {visible(path)}, or its newest version was deleted before.")
    else:
        session.say(f"Deleted the newest version of {visible(path)}{', if there was one' * (there is None)}.")


def _body(pairs: tuple[str, ...], source: str | None, cas: int | None) -> dict[str, Any]:
    if bool(pairs) == bool(source):
        raise click.UsageError("give fields as key=value, or all of them with --json FILE")
    body: dict[str, Any] = {"data": read_object(source) if source else read_pairs(pairs)}
    if cas is not None:
        body["options"] = {"cas": cas}
    return body


def _newest(client: Client, place: str) -> bool | None:
    """Tell whether a secret has a newest version to delete; None when the token may not look at that."""
    from secrethub.client import ApiError

    try:
        found = client.read(f"secret/metadata/{place.removeprefix('secrets/')}").data
    except ApiError as exc:
        if exc.code == "not_found":
            return False
        if exc.code == "permission_denied":
            return None
        raise
    newest = (found.get("versions") or {}).get(str(found.get("current_version"))) or {}
    return not (newest.get("deletion_time") or newest.get("destroyed"))
