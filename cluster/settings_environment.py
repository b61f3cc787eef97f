"""A node's settings from the environment: lists, secrets, files of secrets, and variables that are none.

No message holds a value, for a value may be a secret.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource, SettingsError

from cluster.folders import check_private
from secrethub.errors import Misconfigured

_log = logging.getLogger(__name__)

PREFIX = "SECRETHUB_"
_SECRETS: Mapping[str, tuple[str, ...]] = {
    "DATABASE_URL": ("database_url",),
    "SECRETHUB_DATABASE_URL": ("database_url",),
    "SECRETHUB_RAY__REDIS_PASSWORD": ("ray", "redis_password"),
}
"""Variables of secrets, least specific first, and the field each one sets."""


_OTHERS = frozenset(
    {"ADDR", "CACERT", "CA_SHA256", "CORE_URL", "FORMAT", "NODE_FILE", "PG_BIN", "RAY_HOST"}
    | {f"{name}{end}" for name in ("ROLE_ID", "SECRET_ID", "TOKEN") for end in ("", "_FILE")}
)
"""Variables of the command line, the agent and our own processes, without the prefix."""


class Environment(EnvSettingsSource):
    """Variables; lists in them are written with commas, or as JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        """Return what a variable of a list or a section holds."""
        is_list = field is not None and get_origin(field.annotation) is tuple
        if is_list and isinstance(value, str) and not value.lstrip().startswith("["):
            return [part.strip() for part in value.split(",") if part.strip()]
        return super().decode_complex_value(field_name, field, value)  # type: ignore[arg-type]


class SecretSource(PydanticBaseSettingsSource):
    """Secrets from ``DATABASE_URL`` and from the files that ``…_FILE`` variables name."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Answer nothing: this source knows its few fields by itself."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the fields that variables of secrets set."""
        found: dict[str, Any] = {}
        for variable, (first, *rest) in _SECRETS.items():
            value = _secret(variable)
            if value is not None and rest:
                found[first] = {rest[0]: value}
            elif value is not None:
                found[first] = value
        return found


def _secret(variable: str) -> str | None:
    value, path = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
    if value and path:
        raise Misconfigured(f"{variable} and {variable}_FILE exclude each other")
    return _read(path, f"{variable}_FILE") if path else value or None


def with_secrets(document: dict[str, Any]) -> dict[str, Any]:
    """Replace the file's ``…_file`` settings of secrets by what those files hold."""
    filled = dict(document)
    for first, *rest in set(_SECRETS.values()):
        section = filled
        if rest:
            if not isinstance(filled.get(first), dict):
                continue
            section = filled[first] = dict(filled[first])
        name = rest[0] if rest else first
        path = section.get(f"{name}_file")
        if isinstance(path, str) and name in section:
            raise Misconfigured(f"{'.'.join([first, *rest])} and {name}_file exclude each other")
        if isinstance(path, str):
            section[name] = _read(path, f"{name}_file")
    return filled


def _read(path: str, named_by: str) -> str:
    try:
        return check_private(Path(path), named_by).read_text("utf-8").strip()
    except OSError as exc:
        raise Misconfigured(f"{named_by}: {path}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise Misconfigured(f"{named_by}: {path} is not text (UTF-8)") from exc


def look_at_variables(fields: Collection[str]) -> None:
    """Find misspelt variables, which would otherwise be overlooked.

    One of an unknown section is refused. One without a section is only named: where a service is called
    secrethub, Kubernetes sets ``SECRETHUB_PORT`` and the like by itself.

    Raises:
        Misconfigured: there is no such section.
    """
    known = {name.upper() for name in fields}
    known |= {f"{name.removeprefix(PREFIX)}{end}" for name in _SECRETS for end in ("", "_FILE")} | _OTHERS
    for variable in os.environ:
        section, nested, _ = variable.upper().removeprefix(PREFIX).partition("__")
        if not variable.upper().startswith(PREFIX) or section in known:
            continue
        if nested:
            raise Misconfigured(f"{variable}: there is no section {section.lower()!r}")
        _log.warning("%s is no setting of a node and does nothing", variable)


def explain_variables(error: SettingsError) -> str:
    """Name the variables of the section that could not be read; the error itself names no more."""
    section = str(error).partition('"')[2].partition('"')[0].upper()
    name = f"{PREFIX}{section}"
    given = sorted(one for one in os.environ if one.upper().partition(f"{name}__")[0] in {name, ""})
    return f"{', '.join(given)}: a list is written as a,b or as JSON, a section as JSON"
