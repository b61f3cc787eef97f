"""The declared operations as an OpenAPI 3.1 document. Pure.

What is said here is derived from the same table that requests are routed and decoded by, so it cannot
speak of another API. Forms of path parameters that OpenAPI does not have are told as plain ones: a value
that may hold slashes is one parameter, and what may be left out is a second path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from secrethub.engines.answers import AnyObject, Nothing, TokenGiven
from secrethub.engines.engine import Method, Operation, WholeBody
from secrethub.engines.mounts import Mount

VERSION = "3.1.0"

_VERBS: dict[Method, str] = {
    "read": "get",
    "list": "get",
    "write": "post",
    "delete": "delete",
    "patch": "patch",
}
_PARAMETER = re.compile(r"\{([a-z_]+)([*?]?)\}")
_JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"
_ALWAYS = {
    "400": "The request is wrong; the message says what and where.",
    "403": "No.",
    "404": "There is nothing.",
    "405": "The path exists, the method does not apply.",
    "413": "The body is too large.",
    "429": "Too many requests; Retry-After says when to come again.",
    "503": "Sealed, or something that must answer does not: nothing was disclosed.",
}
_OTHERWISE = "As the operation's own protocol says."


class _Auth(msgspec.Struct, frozen=True):
    """A token that was made, or renewed."""

    client_token: str
    accessor: str
    policies: list[str]
    token_policies: list[str]
    metadata: dict[str, str] | None
    lease_duration: int
    renewable: bool
    entity_id: str
    token_type: str
    orphan: bool
    num_uses: int


class _WrapInfo(msgspec.Struct, frozen=True):
    """Where the answer is kept for whoever holds this token."""

    token: str
    accessor: str
    ttl: int
    creation_time: str
    creation_path: str
    wrapped_accessor: str


class _Envelope(msgspec.Struct, frozen=True):
    """What is around every answer."""

    request_id: str
    lease_id: str
    renewable: bool
    lease_duration: int
    data: dict[str, Any] | None
    wrap_info: _WrapInfo | None
    warnings: list[str] | None
    auth: _Auth | None


class _Failure(msgspec.Struct, frozen=True):
    """What a failed request is answered."""

    errors: list[str]
    code: str
    request_id: str


def document(version: str, offers: Iterable[tuple[Mount, Iterable[Operation]]]) -> dict[str, Any]:
    """Return the document.

    Args:
        version: of the server.
        offers: mounts, each with the operations of its engine.
    """
    described = [(mount, list(operations)) for mount, operations in offers]
    bodies = {
        kind
        for _, operations in described
        for one in operations
        for kind in (one.request, one.response)
        if kind not in {None, WholeBody, AnyObject, Nothing, TokenGiven}
    }
    kinds = sorted(bodies, key=repr)
    kinds += [_Envelope, _Failure, _Auth, _WrapInfo]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    known = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for mount, operations in described:
        for one in operations:
            for path, parameters in _paths(mount.path, one.pattern):
                _add(paths.setdefault(path, {}), one, path, parameters, known)
    return {
        "openapi": VERSION,
        "info": {"title": "SecretHub", "version": version, "description": "Secrets for machines."},
        "servers": [{"url": "/v1"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Vault-Token"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"token": []}, {"bearer": []}],
    }


def _paths(mount: str, pattern: str) -> Iterable[tuple[str, list[str]]]:
    """Yield the paths of a pattern with their parameters; two where the last one may be left out."""
    names = [name for name, _ in _PARAMETER.findall(pattern)]
    yield ("/" + mount + _PARAMETER.sub(r"{\1}", pattern)).rstrip("/"), names
    without = re.sub(r"/?\{[a-z_]+\?\}$", "", pattern)
    if without != pattern:
        yield ("/" + mount + without).rstrip("/"), names[:-1]


def _add(
    item: dict[str, Any], one: Operation, path: str, parameters: list[str], known: Mapping[Any, Any]
) -> None:
    """Describe an operation at a path; the first one that is declared for a verb is the one that answers."""
    verb = _VERBS[one.method]
    present = item.get(verb)
    if present is None:
        item[verb] = _described(one, path, parameters, known)
    elif {one.method, present["x-secrethub-method"]} == {"read", "list"}:
        # One verb for both, and so either's answer.
        present["parameters"] += _list_parameter(required=False)
        present["x-secrethub-method"] = "read or list"
        told, other = present["responses"]["200"], _responses(one, known)["200"]
        told["content"] = _either(told["content"], other["content"])


def _either(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an answer that is one of two."""
    if first == second or _JSON not in first or _JSON not in second:
        return {**second, **first}
    return {**first, _JSON: {"schema": {"anyOf": [told[_JSON]["schema"] for told in (first, second)]}}}


def _described(one: Operation, path: str, parameters: list[str], known: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{one.name}:{one.method}:{path}",
        "summary": one.summary,
        "tags": [one.name.partition(".")[0]],
        "x-secrethub-method": one.method,
        "x-vault-sudo": one.sudo,
        "x-vault-unauthenticated": not _needs_token(one),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in parameters
        ],
        "responses": _responses(one, known),
    }
    described["parameters"] += [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in (*one.query, *_taken(one))
    ]
    if one.method == "list":
        described["parameters"] += _list_parameter(required=True)
    if not _needs_token(one):
        described["security"] = []
    if one.request is not None and one.method in {"write", "patch"}:
        schema = {"type": "object"} if one.request is WholeBody else known[one.request]
        described["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return described


def _taken(one: Operation) -> list[str]:
    """Return the fields that an operation without a body takes from the query."""
    if one.request is None or one.request is WholeBody or one.method in {"write", "patch"}:
        return []
    return [field.encode_name for field in msgspec.structs.fields(one.request)]


def _needs_token(one: Operation) -> bool:
    return one.audited and not one.public and not one.keyless


def _list_parameter(*, required: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": "list",
            "in": "query",
            "required": required,
            "description": "Lists what is below the path, as the verb LIST does.",
            "schema": {"type": "string", "enum": ["true"]},
        }
    ]


def _responses(one: Operation, known: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what may be answered."""
    failure = {"content": {"application/json": {"schema": known[_Failure]}}}
    responses: dict[str, Any] = {code: {"description": text, **failure} for code, text in _ALWAYS.items()}
    # A deleted version is answered 404 with its metadata.
    responses["404"]["content"] = {
        "application/json": {"schema": {"anyOf": [known[_Failure], known[_Envelope]]}}
    }
    responses["200"] = {"description": "Done.", **_answered(one, known)}
    responses["204"] = {"description": "Done; there is nothing to say."}
    for code in map(str, one.statuses):
        text = responses[code]["description"] if code in responses else _OTHERWISE
        responses[code] = {"description": text, **_answered(one, known)}
    return dict(sorted(responses.items()))


def _answered(one: Operation, known: Mapping[Any, Any]) -> dict[str, Any]:
    if one.media:
        return {"content": {kind: {} for kind in one.media}}
    data: Any = known.get(one.response, {"type": "object"})
    if one.bare or not one.audited or one.keyless:
        # Neither has what answers when nothing else does.
        return {"content": {_JSON: {"schema": data}}}
    null = {"type": "null"}
    within: dict[str, Any]
    if one.response is Nothing:
        within = {"properties": {"data": null}}
    elif one.response is TokenGiven:
        # A wrapped answer has neither data nor a token, but tells where they are kept.
        held = ("auth", known[_Auth]), ("wrap_info", known[_WrapInfo])
        within = {"properties": {"data": null}, "anyOf": [{"properties": {name: of}} for name, of in held]}
    else:
        within = {"properties": {"data": {"anyOf": [data, null]}}}
    return {"content": {_JSON: {"schema": {"allOf": [known[_Envelope], within]}}}}
