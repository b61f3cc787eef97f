"""The envelope around every answer."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from secrethub.wire.envelope import Envelope, encode_envelope

EIGHT = ["request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"]
AUTH = {
    "client_token",
    "accessor",
    "policies",
    "token_policies",
    "metadata",
    "lease_duration",
    "renewable",
    "entity_id",
    "token_type",
    "orphan",
    "num_uses",
}


def encoded(*args: Any, **named: Any) -> dict[str, Any]:
    """Encode and decode again."""
    found = json.loads(encode_envelope(*args, **named))
    assert isinstance(found, dict)
    return found


def test_always_eight_keys() -> None:
    """An answer with nothing to say has the eight keys, null where there is nothing."""
    assert list(encoded("r").items()) == [
        ("request_id", "r"),
        ("lease_id", ""),
        ("renewable", False),
        ("lease_duration", 0),
        ("data", None),
        ("wrap_info", None),
        ("warnings", None),
        ("auth", None),
    ]


def test_everything_finds_its_place() -> None:
    """Every argument stands under its own key."""
    answer = encoded(
        "r",
        {"k": [1, None, {"é": True}]},
        None,
        ["careful"],
        lease_id="database/creds/x/1",
        renewable=True,
        lease_duration=60,
        wrap_info={"token": "t"},
    )
    assert list(answer) == EIGHT
    assert answer["data"] == {"k": [1, None, {"é": True}]}
    assert answer["warnings"] == ["careful"]
    assert (answer["lease_id"], answer["renewable"], answer["lease_duration"]) == (
        "database/creds/x/1",
        True,
        60,
    )
    assert answer["wrap_info"] == {"token": "t"}


def test_no_warnings_is_null() -> None:
    """An empty list of warnings is written as null."""
    assert encoded("r", warnings=[])["warnings"] is None


def test_auth_has_all_keys() -> None:
    """An auth block has every key, whatever the caller gives, and no other."""
    auth = encoded("r", auth={"client_token": "hvs.x", "policies": ["a"], "metadata": {"role": "x"}})["auth"]
    assert set(auth) == AUTH
    assert auth["client_token"] == "hvs.x"
    assert auth["policies"] == ["a"]
    assert auth["token_policies"] == []
    assert auth["token_type"] == "service"
    with pytest.raises(ValueError, match="colour"):
        encode_envelope("r", auth={"colour": "red"})


def test_repeated_at_the_top() -> None:
    """Data is repeated beside the eight keys and never in their place."""
    data = {"keys": ["a"], "data": 1, "request_id": "forged", "auth": {"client_token": "forged"}}
    answer = encoded("r", data, repeat_at_top=True)
    assert answer == {**dict.fromkeys(EIGHT), **encoded("r", data), "keys": ["a"]}
    assert answer["request_id"] == "r"
    assert answer["auth"] is None
    assert answer["data"] == data
    assert list(encoded("r", None, repeat_at_top=True)) == EIGHT


def test_read_only_mappings_are_data() -> None:
    """Any mapping is an object, at any depth."""
    assert encoded("r", MappingProxyType({"a": MappingProxyType({"b": 1})}))["data"] == {"a": {"b": 1}}
    with pytest.raises(TypeError):
        encode_envelope("r", {"a": object()})


def test_secrets_do_not_show() -> None:
    """The envelope's own representation has no data in it."""
    assert "canary" not in repr(Envelope(request_id="r", data={"password": "canary"}))
