"""Where a static secret is, from the path that a person writes."""

from __future__ import annotations

import click

from cluster.cli.output import visible


def secret_path(path: str, *, whole: bool = False) -> str:
    """Return where the flat view has ``path``.

    Args:
        path: as a person writes it, with or without its mount.
        whole: the mount itself will do, too.

    Raises:
        click.UsageError: it names no secret.
    """
    bare = path.strip("/")
    for mount in ("secrets", "secret"):
        if bare == mount or bare.startswith(mount + "/"):
            bare = bare[len(mount) :].lstrip("/")
            break
    if not bare and not whole:
        raise click.UsageError("the path of a secret is empty; write it like prod/db")
    return f"secrets/{bare}" if bare else "secrets"


def advice_about(path: str) -> dict[str, str]:
    """Return what to do where nothing is found at ``path``: it may be written as Vault's HTTP API has it."""
    endpoint, slash, rest = secret_path(path, whole=True).removeprefix("secrets/").partition("/")
    if not slash or endpoint not in {"data", "metadata"}:
        return {}
    return {"not_found": f"the command adds {endpoint}/ itself: try {visible(rest)}"}


def store_path(endpoint: str, path: str, *, whole: bool = False) -> str:
    """Return where the store itself has an endpoint of ``path``, e.g. ``secret/metadata/prod/db``.

    Args:
        endpoint: below the mount, e.g. ``metadata``.
        path: as a person writes it, with or without its mount.
        whole: the mount itself will do, too.

    Raises:
        click.UsageError: it names no secret.
    """
    bare = secret_path(path, whole=whole).removeprefix("secrets").lstrip("/")
    return f"secret/{endpoint}/{bare}".rstrip("/")


def version_numbers(text: str) -> list[int]:
    """Return the versions of an option, written ``1,2,5``.

    Raises:
        click.UsageError: not of this form.
    """
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in numbers):
        raise click.UsageError("versions are written like 1,2,5")
    return [int(part) for part in numbers]
