"""Kinds of sinks, their options, and how a sink is kept.

A sink is an authenticated row; what is secret of it, the header of an HTTP collector, is sealed to its place.
Options are texts, as Vault's clients send them. Those of Vault that would show values in clear, or that
nobody here acts on, are refused rather than dropped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.engines.sinks.file import FileTarget
from secrethub.engines.sinks.http import HttpTarget
from secrethub.engines.sinks.syslog import SyslogTarget
from secrethub.engines.sinks.target import Sink, Target
from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import AUDIT_SETTINGS, Row
from secrethub.storage.sinks import sign
from secrethub.wire.durations import parse_duration

PREFIX = "sink/"
DEFAULT_LAG = "24h"
MIN_LAG = 60
_AUTHORIZATION = "authorization"
_SIGNED = "signed"
_NODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HEADER = re.compile(r"[\x20-\x7e]{1,4096}")
_COMMON = frozenset({"max_lag", "node"})
_OPTIONS: Mapping[str, frozenset[str]] = {
    "file": frozenset({"file_path"}),
    "syslog": frozenset({"facility", "tag"}),
    "http": frozenset({"url", "ca_pem", _AUTHORIZATION}),
}
_VAULTS: Mapping[str, frozenset[str]] = {
    "log_raw": frozenset({"false"}),
    "hmac_accessor": frozenset({"true"}),
    "elide_list_responses": frozenset({"false"}),
    "format": frozenset({"json"}),
    "mode": frozenset({"0600", "600"}),
    "prefix": frozenset({""}),
}
"""Options of Vault's devices with the values that say what is done anyway."""


def checked_options(kind: str, given: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """Return the options that are kept in clear, and the value of the header.

    Raises:
        InvalidRequest: an unknown kind, an unknown option, or one that cannot be honoured.
    """
    if kind not in _OPTIONS:
        raise InvalidRequest(f"type is one of {', '.join(_OPTIONS)}")
    options: dict[str, str] = {}
    for name, value in given.items():
        if name in _VAULTS:
            if value.lower() not in _VAULTS[name]:
                raise InvalidRequest(f"option {name}: only {' or '.join(_VAULTS[name]) or 'nothing'} is done")
        elif name not in _OPTIONS[kind] | _COMMON:
            raise InvalidRequest(f"a {kind} sink has no option {name!r}")
        elif value:
            options[name] = value
    header = options.pop(_AUTHORIZATION, None)
    if header is not None and _HEADER.fullmatch(header) is None:
        raise InvalidRequest("authorization is the value of the header, in printable ASCII")
    if _NODE.fullmatch(options.get("node", "any")) is None:
        raise InvalidRequest("node is the name of a node")
    if parse_duration(options.setdefault("max_lag", DEFAULT_LAG)) < MIN_LAG:
        raise InvalidRequest(f"max_lag is at least {MIN_LAG} seconds")
    return options, header


def target_of(settings: NodeSettings, sink: Sink) -> Target:
    """Return the target of a sink; nothing is opened yet.

    Raises:
        InvalidRequest: an option cannot be, on this node.
    """
    options = sink.options
    if sink.type == "file":
        if "file_path" not in options:
            raise InvalidRequest("a file sink needs file_path")
        return FileTarget(settings, options["file_path"])
    if sink.type == "syslog":
        return SyslogTarget(settings, options.get("facility", "AUTH"), options.get("tag", "secrethub"))
    if "url" not in options:
        raise InvalidRequest("an http sink needs url")
    return HttpTarget(settings, options["url"], sink.authorization, options.get("ca_pem", ""))


def body_of(keyring: Keyring, sink: Sink) -> dict[str, Any]:
    """Return a sink as it is kept."""
    sealed = ""
    if sink.authorization is not None:
        secret = keyring.seal(sink.authorization.reveal().encode(), _place(sink.uuid))
        sealed = base64.b64encode(secret).decode("ascii")
    return {
        "uuid": sink.uuid,
        "type": sink.type,
        "description": sink.description,
        "options": dict(sink.options),
        _AUTHORIZATION: sealed,
        _SIGNED: sink.signed,
    }


def sink_of(keyring: Keyring, row: Row) -> Sink:
    """Return the sink that a row describes.

    Raises:
        DecryptionFailed: its secret was not sealed here.
    """
    body, header = row.body, None
    if body[_AUTHORIZATION]:
        opened = keyring.open(base64.b64decode(body[_AUTHORIZATION]), _place(body["uuid"]))
        header = Sensitive(opened.decode())
    return Sink(
        name=row.key.removeprefix(PREFIX),
        uuid=body["uuid"],
        type=body["type"],
        description=body["description"],
        options=body["options"],
        authorization=header,
        signed=body.get(_SIGNED, False),
    )


async def all_sinks(core: Core) -> tuple[Sink, ...]:
    """Return every sink by its name.

    Raises:
        IntegrityFailure: a row is not authentic, or one is missing.
    """
    rows, broken = await core.authority.everything(AUDIT_SETTINGS)
    for trouble in broken.values():
        raise trouble
    keyring = core.keyring()
    return tuple(sink_of(keyring, row) for row in rows if row.key.startswith(PREFIX))


async def sign_places(core: Core, sink: Sink) -> None:
    """Authenticate the places of a sink from before they were, and note in its row that they are.

    The row is authentic: places without authentication are never taken for such old ones again.

    Raises:
        SecretHubError: not now.
    """
    async with (
        own_changes(core, "audit.sink.sign", f"sys/audit/{sink.name}") as fence,
        core.authority.change(fence) as change,
    ):
        row = await change.get(AUDIT_SETTINGS, PREFIX + sink.name)
        if row is None or row.body["uuid"] != sink.uuid or row.body.get(_SIGNED, False):
            return
        await change.put(AUDIT_SETTINGS, row.key, {**row.body, _SIGNED: True})
        await sign(change.connection, core.keyring(), sink.uuid)


def _place(uuid: str) -> Place:
    return Place(table=AUDIT_SETTINGS.name, column=_AUTHORIZATION, row=uuid, version=1)
