"""The OpenAPI document says what the table of operations says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import schemathesis

from secrethub.engines.kinds import engines
from secrethub.engines.mounts import BUILT_IN, Mount
from secrethub.engines.openapi import document

KINDS = engines()
MOUNTS = (
    *BUILT_IN,
    Mount(path="secret/", type="kv", uuid="1", accessor="a", options={"version": "2"}),
    Mount(path="plain/", type="kv", uuid="2", accessor="a", options={"version": "1"}),
    Mount(path="secrets/", type="flat", uuid="3", accessor="a"),
    *(
        Mount(path=f"at/{kind}/", type=kind, uuid=kind, accessor="a")
        for kind in sorted(KINDS)
        if kind not in {"system", "agents", "cubbyhole", "kv", "kv-v1", "flat"}
    ),
)


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The document of every kind of engine, as it leaves."""
    offers = [(mount, KINDS[mount.kind].operations()) for mount in MOUNTS]
    found: dict[str, Any] = json.loads(json.dumps(document("1.2.3", offers)))
    return found


def test_it_is_an_openapi_document(described: dict[str, Any]) -> None:
    """It is valid OpenAPI 3.1, and every reference in it leads somewhere."""
    schemathesis.openapi.from_dict(described).validate()
    text = json.dumps(described)
    known = described["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in known, name
    ids = [one["operationId"] for item in described["paths"].values() for one in item.values()]
    assert len(ids) == len(set(ids))


def test_no_operation_is_left_out(described: dict[str, Any]) -> None:
    """Every declared operation has a path and a verb, with its parameters."""
    verbs = {"read": "get", "list": "get", "write": "post", "delete": "delete", "patch": "patch"}
    for mount in MOUNTS:
        for one in KINDS[mount.kind].operations():
            path = ("/" + mount.path + re.sub(r"[*?]\}", "}", one.pattern)).rstrip("/")
            told = described["paths"][path][verbs[one.method]]
            assert one.method in told["x-secrethub-method"], (path, one.method)
            names = {parameter["name"] for parameter in told["parameters"] if parameter["in"] == "path"}
            assert names == set(re.findall(r"\{(\w+)\}", path)), path


def test_what_is_said_of_an_operation(described: dict[str, Any]) -> None:
    """Bodies, lists, rights and answers are told as they are declared."""
    paths = described["paths"]
    made = paths["/at/token/create"]["post"]
    schema = made["requestBody"]["content"]["application/json"]["schema"]
    body = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    assert {"policies", "ttl", "num_uses"} <= set(body["properties"])
    assert made["x-vault-unauthenticated"] is False
    login = paths["/at/approle/login"]["post"]
    assert (login["security"], login["x-vault-unauthenticated"]) == ([], True)
    folder = paths["/secret/metadata"]["get"]["parameters"]
    assert [one["name"] for one in folder if one.get("required")] == ["list"]
    either = paths["/secret/metadata/{path}"]["get"]
    assert either["x-secrethub-method"] == "read or list"
    assert {"name": "list", "required": False}.items() <= either["parameters"][-1].items()
    assert paths["/sys/auth/{path}"]["post"]["x-vault-sudo"] is True
    assert list(paths["/at/pki/ca/pem"]["get"]["responses"]["200"]["content"]) == [
        "application/pem-certificate-chain"
    ]
    assert "202" in paths["/at/token/tidy"]["post"]["responses"]
    assert {one["name"] for one in paths["/secret/data/{path}"]["get"]["parameters"]} == {"path", "version"}


def test_every_operation_says_what_it_answers() -> None:
    """None is without a declared answer: data, a token, nothing, or a document of a media type."""
    silent = [
        (kind, one.name, one.method)
        for kind, engine in KINDS.items()
        for one in engine.operations()
        if (one.response is None) == (not one.media)
    ]
    assert not silent


def schema_of(described: dict[str, Any], path: str, verb: str = "get") -> Any:
    """Return what an operation's good answer is like."""
    return described["paths"][path][verb]["responses"]["200"]["content"]["application/json"]["schema"]


def test_answers_are_told(described: dict[str, Any]) -> None:
    """What an operation answers is the envelope's data; a list has keys; one verb may answer either."""
    components = described["components"]["schemas"]
    assert set(components["_Auth"]["required"]) > {"client_token", "lease_duration", "renewable"}
    told = schema_of(described, "/secret/data/{path}")["allOf"][1]["properties"]["data"]["anyOf"]
    assert told == [{"$ref": "#/components/schemas/VersionAnswer"}, {"type": "null"}]
    listed = schema_of(described, "/secret/metadata")["allOf"][1]["properties"]["data"]["anyOf"][0]
    assert components[listed["$ref"].rpartition("/")[2]]["required"] == ["keys"]
    either = schema_of(described, "/secret/metadata/{path}")["anyOf"]
    names = {one["allOf"][1]["properties"]["data"]["anyOf"][0]["$ref"].rpartition("/")[2] for one in either}
    assert names == {"MetadataAnswer", "Names"}
    nothing = schema_of(described, "/sys/policies/acl/{name}", "post")["allOf"][1]
    assert nothing == {"properties": {"data": {"type": "null"}}}
    token = schema_of(described, "/at/approle/login", "post")["allOf"][1]
    assert [list(held["properties"]) for held in token["anyOf"]] == [["auth"], ["wrap_info"]]
    assert schema_of(described, "/sys/health") == {"$ref": "#/components/schemas/HealthAnswer"}
    mounts = schema_of(described, "/sys/mounts")["allOf"][1]["properties"]["data"]["anyOf"][0]
    assert mounts["additionalProperties"] == {"$ref": "#/components/schemas/MountAnswer"}
