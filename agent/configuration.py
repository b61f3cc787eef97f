"""``agent.toml`` and the environment, checked as a whole; what cannot work is refused by name.

The environment stands over the file: ``SECRETHUB_CORE_URL``, ``SECRETHUB_CA_FILE``,
``SECRETHUB_CA_SHA256``, ``SECRETHUB_ROLE_ID``, ``SECRETHUB_SECRET_ID`` (the last two also as
``…_FILE``), and every single setting of a section as ``SECRETHUB_<SECTION>__<KEY>``, for example
``SECRETHUB_CACHE__TTL=10m``. Variables that are none of the agent's are left to the programs they
belong to.
"""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from agent.sections import read_commands, read_socket, read_templates
from agent.settings import (
    AgentKeyType,
    AuthSettings,
    CacheSettings,
    CoreSettings,
    HostSettings,
    LogLevel,
    Settings,
)
from agent.table import Table
from agent.urls import problem as url_problem
from secrethub.errors import InvalidPath, Misconfigured
from secrethub.sensitive import Sensitive
from secrethub.wire.canonical_path import check_path

DEFAULT_FILE = Path("/etc/secrethub/agent.toml")
DEFAULT_STATE = "/var/lib/secrethub-agent"

_SECTIONS = ("agent", "core", "auth", "state", "cache", "socket", "log")
_SHORT = {
    "SECRETHUB_CORE_URL": ("core", "url"),
    "SECRETHUB_CA_FILE": ("core", "ca_file"),
    "SECRETHUB_CA_SHA256": ("core", "ca_sha256"),
    "SECRETHUB_ROLE_ID": ("auth", "role_id"),
    "SECRETHUB_ROLE_ID_FILE": ("auth", "role_id_file"),
    "SECRETHUB_SECRET_ID_FILE": ("auth", "secret_id_file"),
}
_SECRET_ID = "SECRETHUB_SECRET_ID"  # noqa: S105 - a variable's name
_NESTED = re.compile(r"SECRETHUB_([A-Z]+)__([A-Z0-9_]+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def load(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Args:
        file: the file to read; None for :data:`DEFAULT_FILE` if it is there, else the environment
            alone.
        environment: usually ``os.environ``.

    Raises:
        Misconfigured: a file that cannot be read, an unknown setting, a value of the wrong type, or
            settings that do not work together.
    """
    values = _read(file)
    _overlay(values, environment)
    top = Table("", values)
    for name in top.left():
        # First of all, or what stands in a mistyped section would be told as missing in the right one.
        if name not in {*_SECTIONS, "template", "command"}:
            raise Misconfigured(f"unknown setting {name}")
    secret_id = environment.get(_SECRET_ID)
    settings = Settings(
        host=_host(top.table("agent")),
        core=_core(top.table("core")),
        auth=_auth(top.table("auth"), Sensitive(secret_id) if secret_id else None),
        state_dir=_state(top.table("state")),
        cache=_cache(top.table("cache")),
        socket=read_socket(top.table("socket")),
        templates=read_templates(top.tables("template")),
        commands=read_commands(top.tables("command")),
        log_level=_log(top.table("log")),
    )
    if settings.socket is None and not settings.templates and not settings.commands:
        raise Misconfigured("nothing to do: neither a [[template]] nor a [[command]] nor socket.path is set")
    return settings


def _read(file: Path | None) -> dict[str, Any]:
    chosen = file or DEFAULT_FILE
    try:
        return tomllib.loads(chosen.read_text("utf-8"))
    except FileNotFoundError as exc:
        if file is None:
            return {}
        raise Misconfigured(f"{chosen}: no such file") from exc
    except OSError as exc:
        raise Misconfigured(f"{chosen}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise Misconfigured(f"{chosen} is not valid TOML: {exc}") from exc


def _overlay(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable, (section, key) in _SHORT.items():
        if environment.get(variable):
            _set(values, section, key, environment[variable])
    for variable, value in environment.items():
        match = _NESTED.fullmatch(variable)
        if match and match[1].lower() in _SECTIONS:
            _set(values, match[1].lower(), match[2].lower(), value)


def _set(values: dict[str, Any], section: str, key: str, value: str) -> None:
    table = values.setdefault(section, {})
    if not isinstance(table, dict):
        raise Misconfigured(f"{section} must be a table")
    table[key] = value


def _host(table: Table) -> HostSettings:
    name = table.text("name") or socket.gethostname()
    if _NAME.fullmatch(name) is None:
        raise table.wrong("name", "must be letters, digits, '.', '_' and '-' (at most 128)")
    labels = table.table("labels")
    for key in labels.left():
        if _NAME.fullmatch(key) is None or len(key) > 64:
            raise labels.wrong(key, "has a name that cannot be a label's")
    pairs = {key: labels.needed(key) for key in labels.left()}
    table.finish()
    return HostSettings(name=name, labels=pairs)


def _core(table: Table) -> CoreSettings:
    urls = tuple(url.rstrip("/") for url in table.texts("url"))
    if not urls:
        raise table.wrong("url", "is missing (or set SECRETHUB_CORE_URL)")
    for url in urls:
        wrong = url_problem(url, bare=True)
        if wrong is not None:
            raise table.wrong("url", wrong)
    ca_file = table.path("ca_file")
    pin = table.text("ca_sha256")
    if pin is not None:
        pin = pin.lower().removeprefix("sha256:").replace(":", "")
        if re.fullmatch(r"[0-9a-f]{64}", pin) is None:
            raise table.wrong("ca_sha256", "must be 64 hexadecimal digits")
    table.finish()
    return CoreSettings(urls=urls, ca_file=ca_file, ca_sha256=pin)


def _auth(table: Table, secret_id: Sensitive[str] | None) -> AuthSettings:
    if table.has("secret_id"):
        raise table.wrong("secret_id", f"does not belong in a file: use secret_id_file or {_SECRET_ID}")
    role_id = table.text("role_id")
    role_id_file = table.path("role_id_file")
    if role_id is not None and role_id_file is not None:
        raise table.wrong("role_id_file", "and role_id exclude each other")
    if role_id_file is not None:
        try:
            role_id = role_id_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise table.wrong("role_id_file", "cannot be read") from exc
    settings = AuthSettings(
        mount=_mount(table),
        role_id=role_id,
        secret_id=secret_id,
        secret_id_file=table.path("secret_id_file"),
        wrapped_from=_api_path(table.text("wrapped_from")),
        keep=table.flag("keep", default=False),
        key_type=cast(
            "AgentKeyType", table.choice("key_type", default="rsa-2048", allowed=("rsa-2048", "ecdsa-p256"))
        ),
    )
    table.finish()
    return settings


def _mount(table: Table) -> str:
    given = table.text("mount", "approle") or ""
    try:
        return check_path(given.strip("/").removeprefix("auth/"))
    except InvalidPath as exc:
        raise table.wrong("mount", "must be the path of an auth method, like team/machines") from exc


def _api_path(text: str | None) -> str | None:
    return None if text is None else text.strip("/").removeprefix("v1/")


def _state(table: Table) -> Path:
    path = table.path("dir") or Path(DEFAULT_STATE)
    table.finish()
    return path


def _cache(table: Table) -> CacheSettings:
    settings = CacheSettings(
        ttl=table.seconds("ttl", default=300),
        max_entries=table.whole("max_entries", default=10_000, least=1),
        max_bytes=table.size("max_bytes", default=64 * 2**20),
        stale=table.seconds("stale", default=86_400),
        disk=table.flag("disk", default=True),
    )
    table.finish()
    if 0 < settings.stale < settings.ttl:
        raise table.wrong("stale", "must not be shorter than cache.ttl (0 switches it off)")
    return settings


def _log(table: Table) -> LogLevel:
    level = table.choice("level", default="info", allowed=("debug", "info", "warning", "error"))
    table.finish()
    return cast("LogLevel", level)
