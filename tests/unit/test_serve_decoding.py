"""Bodies become typed values: what Vault's clients send is taken, what could mean two things is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.engines.engine import EMPTY, Answer, Context, Method, Operation
from secrethub.errors import InvalidRequest
from secrethub.operations.call import Call
from secrethub.operations.decode import decode_body


class Nested(msgspec.Struct, frozen=True):
    cas: int | None = None
    force: bool = False


class Body(msgspec.Struct, frozen=True):
    count: int = 0
    flag: bool | None = None
    ttl: str | int | None = None
    names: list[str] | None = None
    text: str = ""
    data: dict[str, Any] | None = None
    options: Nested | None = None


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    count: int = 0
    nested: Nested | None = None


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    count: int = 0


async def _nothing(_context: Context, _body: object) -> Answer:
    return EMPTY


def decoded(
    body: bytes | Any, *, kind: type[msgspec.Struct] = Body, strict: bool = False, method: Method = "write"
) -> tuple[Any, tuple[str, ...]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    operation = Operation(
        name="x", method=method, pattern="x", handler=_nothing, capability="read", request=kind, strict=strict
    )
    call = Call(
        method=method,
        path="x",
        credential=None,
        client_address=None,
        door="http",
        request_id="r",
        body=raw,
        query={"count": "7"},
    )
    return decode_body(operation, call)


@pytest.mark.parametrize(
    ("given_body", "wanted"),
    [
        ({}, Body()),
        (b"", Body()),
        (b" \r\n", Body()),
        (b"{}", Body()),
        ({"count": None, "names": None, "text": None, "options": None}, Body()),
        ({"other": None, "options": {"other": None}}, Body(options=Nested())),
        ({"count": "24"}, Body(count=24)),
        ({"count": "-3"}, Body(count=-3)),
        ({"flag": "true"}, Body(flag=True)),
        ({"flag": "False"}, Body(flag=False)),
        ({"flag": "0"}, Body(flag=False)),
        ({"ttl": "1h"}, Body(ttl="1h")),
        ({"ttl": 60}, Body(ttl=60)),
        ({"names": "a, b,,c"}, Body(names=["a", "b", "c"])),
        ({"names": ""}, Body(names=[])),
        ({"names": ["a,b"]}, Body(names=["a,b"])),
        ({"text": 12}, Body(text="12")),
        ({"text": True}, Body(text="true")),
        ({"options": {"cas": "3", "force": "true"}}, Body(options=Nested(cas=3, force=True))),
        ({"options": {"cas": None}}, Body(options=Nested())),
        ({"data": {"count": "24", "flag": "true"}}, Body(data={"count": "24", "flag": "true"})),
    ],
)
def test_what_clients_send_is_taken(given_body: Any, wanted: Body) -> None:
    """Null is absent, numbers and booleans may be text, lists may be joined with commas."""
    assert decoded(given_body) == (wanted, ())


@pytest.mark.parametrize(
    "given_body",
    [
        {"count": True},
        {"count": False},
        {"count": "--5"},
        {"count": "+5"},
        {"count": "5.0"},
        {"count": 5.5},
        {"count": "²"},
        {"count": "٣"},
        {"count": "1" * 30},
        {"count": " 1"},
        {"count": ""},
        {"count": []},
        {"count": {}},
        {"flag": "yes"},
        {"flag": 1},
        {"flag": []},
        {"ttl": []},
        {"ttl": {}},
        {"ttl": 1.5},
        {"names": 5},
        {"names": [1]},
        {"names": True},
        {"names": {"a": 1}},
        {"text": []},
        {"data": "x"},
        {"data": []},
        {"options": "cas=1"},
        {"options": []},
        {"options": {"cas": True}},
        {"options": {"cas": "x"}},
        [],
        "text",
        12,
        None,
        b"{",
        b"{}{}",
        b"nonsense",
        b'{"count": 1e400}',
        b'{"count": NaN}',
        b'{"count": ' + b"1" * 5000 + b"}",
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b'{"text": "\x00"}',
        b"\xef\xbb\xbf{}",
        b'{"data": ' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"data": {"a":' * 65 + b"1" + b"}" * 130,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"]" * 100_000,
        b'\\"' * 500_000,
        b'"\\' * 500_000,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_value_is_refused(given_body: Any) -> None:
    """A boolean is no number, half a number is none, and rubbish of any size is a plain refusal."""
    with pytest.raises(InvalidRequest):
        decoded(given_body)


def test_unknown_fields_warn() -> None:
    """Vault's endpoints go on without what they do not know, and say so."""
    value, warnings = decoded({"count": 1, "b": 2, "a\n": 3, "options": {"cas": 1, "c": 4}})
    assert value == Body(count=1, options=Nested(cas=1))
    assert warnings == ("unknown fields were ignored: 'a\\n', 'b', 'options.c'",)
    assert len(decoded({f"name{number}": 1 for number in range(1000)})[1][0]) == 400


def test_unknown_fields_are_refused_where_the_type_forbids_them() -> None:
    """A type may refuse what it does not know and still take what Vault's clients send."""
    taken = decoded({"count": "1", "other": None, "nested": {"cas": "2"}}, kind=Whole)
    assert taken == (Whole(count=1, nested=Nested(cas=2)), ())
    with pytest.raises(InvalidRequest, match="unknown fields: 'other'"):
        decoded({"count": 1, "other": 0}, kind=Whole)


def test_strict_bodies_take_nothing_else() -> None:
    """SecretHub's own endpoints refuse what they do not know and convert nothing."""
    assert decoded({"count": 1}, kind=Strict, strict=True) == (Strict(count=1), ())
    for body in ({"count": 1, "a": 2}, {"count": "1"}, {"count": None}, {"count": True}):
        with pytest.raises(InvalidRequest):
            decoded(body, kind=Strict, strict=True)


def test_query_is_data_where_there_is_no_body() -> None:
    """GET and DELETE take their query as data; a write does not."""
    assert decoded(b"", method="delete")[0].count == 7
    assert decoded(b"", method="read")[0].count == 7
    assert decoded(b"", method="write")[0].count == 0


def test_sixty_four_levels_are_read() -> None:
    """Depth is what counts, not how many brackets there are or stand in strings."""
    body = b'{"data": {"a": ' + b"[" * 62 + b"]" * 62 + b', "b": [[], [], "' + b"[" * 200 + b'\\"["]}}'
    assert decoded(body)[0].data is not None
    wide = b'{"data": {"a": [' + b",".join([b"{}"] * 10_000) + b"]}}"
    assert len(decoded(wide)[0].data["a"]) == 10_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(list(Body.__struct_fields__)) | st.text(), json_values, max_size=6))
def test_any_object_is_a_value_or_a_refusal(body: dict[str, Any]) -> None:
    """No JSON object makes anything but a typed value or a refusal."""
    try:
        value, _ = decoded(body)
    except InvalidRequest:
        return
    assert isinstance(value, Body)


@given(st.binary(max_size=300) | st.text(alphabet='{}[]",:\\0 ', max_size=80).map(str.encode))
def test_any_bytes_are_a_value_or_a_refusal(body: bytes) -> None:
    """No bytes make anything but a typed value or a refusal."""
    try:
        value, _ = decoded(body)
    except InvalidRequest:
        return
    assert isinstance(value, Body)


@given(json_values)
def test_depth_is_counted_exactly(value: Any) -> None:
    """What is not deep is never refused for its depth, whatever its strings hold."""
    body = {"data": {"v": value, "many": [[]] * 70}}
    assert decoded(body)[0].data == json.loads(json.dumps(body))["data"]
