"""Whether answers have a status and a form that is declared: asked of all that a test's node gives."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import msgspec

from secrethub.engines.answers import AnyObject, Nothing, TokenGiven
from secrethub.engines.engine import Method, Operation, WholeBody
from secrethub.engines.flat import flat_view
from secrethub.engines.openapi import _responses
from secrethub.engines.runtime import Core

METHODS: dict[str, Method] = {
    "GET": "read",
    "POST": "write",
    "PUT": "write",
    "DELETE": "delete",
    "LIST": "list",
    "PATCH": "patch",
}


def check_declared(core: Core, verb: str, path: str, query: Any, response: httpx2.Response) -> None:
    """Check an answer's status, and a good one's JSON, as far as this process knows who gave it."""
    operation = _operation(core, verb, path, query)
    if operation is None:
        return
    if response.status_code == 500:
        # Somebody tampered, which tests do and the document does not announce; a defect is another thing.
        assert response.json()["code"] != "internal", (verb, path)
    elif operation.name != "sys.health":  # whose statuses the caller may choose
        documented = _responses(operation, defaultdict(dict))
        assert str(response.status_code) in documented, (verb, path, response.status_code)
    if response.status_code != 200 or response.headers.get("content-type") != "application/json":
        return
    if operation.response is None:
        return
    told = response.json()
    if not (operation.bare or not operation.audited or operation.keyless):
        if told["wrap_info"] is not None:
            return
        if operation.response is TokenGiven:
            assert told["auth"] is not None, (verb, path)
        told = told["data"]
    if operation.response in {Nothing, TokenGiven}:
        assert told is None, (verb, path, sorted(told))
    elif told is not None and operation.response not in {AnyObject, WholeBody}:
        try:
            msgspec.convert(told, operation.response)
        except msgspec.ValidationError as exc:
            raise AssertionError(f"{verb} {path} is not answered as {operation.response}: {exc}") from exc


def _operation(core: Core, verb: str, path: str, query: Any) -> Operation | None:
    path, _, asked = path.partition("?")
    method = METHODS.get(verb)
    found = core.mounts._found  # without reading anything, so that no test sees another state
    if method is None or found is None or "%" in path:
        return None
    given = {**dict(parse_qsl(asked)), **(query if isinstance(query, dict) else {})}
    if given.get("list") in {"true", "1"}:
        method = "list"
    path = flat_view(method, path.rstrip("/"))
    for mount in found.mounts:
        if mount.covers(path):
            return core.mounts._within(mount, method, path[len(mount.path) :]).operation
    return None
