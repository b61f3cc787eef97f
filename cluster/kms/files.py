"""Reading the credentials that a node's settings name."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

from cluster.folders import check_private
from secrethub.errors import Misconfigured
from secrethub.node import KeyServiceSettings


def private_file(settings: KeyServiceSettings) -> Path:
    """Return the credentials' file, which must be the owner's alone.

    Raises:
        Misconfigured: there is none, or others can read it.
    """
    if settings.credentials_file is None:
        raise Misconfigured(f"key_services.{settings.name}: credentials_file is needed, or ambient = true")
    return check_private(Path(settings.credentials_file), f"key_services.{settings.name}.credentials_file")


def read_json(settings: KeyServiceSettings, *names: str) -> dict[str, str]:
    """Return the texts called ``names`` in the credentials' file, a JSON object.

    Raises:
        Misconfigured: it is not one, or one is missing. No message holds a value.
    """
    path = private_file(settings)
    try:
        found = json.loads(path.read_text("utf-8"))
        return {name: _text(found[name]) for name in names}
    except (ValueError, KeyError, TypeError) as exc:
        raise Misconfigured(f"{path} must be a JSON object with {', '.join(names)}") from exc


def read_profile(settings: KeyServiceSettings) -> dict[str, str]:
    """Return the section ``default`` of the credentials' file, in the form of AWS's own tools.

    Raises:
        Misconfigured: it has none.
    """
    path = private_file(settings)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text("utf-8"))
        return dict(parser["default"])
    except (configparser.Error, ValueError, KeyError):
        # Without its cause, whose message may hold a line of the file.
        raise Misconfigured(f"{path} must have a section [default]") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("not a text")
    return value
