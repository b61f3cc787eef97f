"""Rules of key/value secrets without a database: merge patch, keys, heads, settings, custom metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.engines.kv.merge_patch import merged, subkeys
from secrethub.engines.kv.rules import (
    MOST_VERSIONS,
    NEVER,
    Settings,
    check_cas,
    checked_metadata,
    checked_versions,
    deletion_time,
    duration_text,
    mount_duration,
    new_head,
    with_version,
)
from secrethub.errors import CasMismatch, InvalidRequest
from secrethub.storage.kv import Head, State

_RFC7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(("target", "patch", "result"), _RFC7396)
def test_the_cases_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    """Every example of RFC 7396, appendix A, gives what stands there."""
    assert merged(target, patch) == result


@given(_JSON, _JSON)
def test_a_patch_is_applied_once(target: Any, patch: Any) -> None:
    """Applying the same patch again changes nothing, and neither argument is touched."""
    before = msgspec.json.encode([target, patch])
    once = merged(target, patch)
    assert merged(once, patch) == once
    assert msgspec.json.encode([target, patch]) == before


def test_keys_without_values() -> None:
    """Keys stay, nested as they are, down to the depth asked for; nothing of a value is left."""
    document = {"a": {"b": {"c": "canary"}, "d": []}, "e": {}, "f": "canary", "g": [{"h": "canary"}]}
    everything = {"a": {"b": {"c": None}, "d": None}, "e": None, "f": None, "g": None}
    assert subkeys(document) == subkeys(document, 0) == subkeys(document, 3) == everything
    assert subkeys(document, 2) == {"a": {"b": None, "d": None}, "e": None, "f": None, "g": None}
    assert subkeys(document, 1) == dict.fromkeys("aefg")


def _head(**changes: Any) -> Head:
    return replace(new_head("s", "p", "i", 5), **changes)


def test_which_versions_are_kept() -> None:
    """The secret's number counts before the mount's, and that before ten."""
    for own, mount, kept in ((0, 0, 10), (0, 3, 3), (2, 3, 2), (4, 3, 4)):
        head, settings = _head(max_versions=own), Settings(max_versions=mount)
        for number in range(1, 15):
            head = with_version(head, settings, number, first=number == 1)
            assert head.current_version == head.revision == number
            assert len(head.versions) == min(kept, number)
            assert head.versions[-1] == State(created_at=number)
            assert head.state(head.oldest_version) == head.versions[0]
        head = with_version(replace(head, max_versions=1), settings, 20, first=False)
        assert (head.oldest_version, len(head.versions)) == (15, 1)


@pytest.mark.parametrize(
    ("own", "mount", "seconds"),
    [(0, 0, 0), (60, 0, 60), (0, 60, 60), (60, 30, 30), (30, 60, 30), (30, NEVER, 0), (0, NEVER, 0)],
)
def test_when_a_version_is_deleted(own: int, mount: int, seconds: int) -> None:
    """The shorter of both times counts, unless the mount forbids it."""
    head, settings = _head(delete_version_after=own), Settings(delete_version_after=mount)
    expected = 1_000 + seconds * 1_000_000 if seconds else 0
    assert deletion_time(head, settings, 1_000) == expected
    assert with_version(head, settings, 1_000, first=True).versions[0].deleted_at == expected


def test_a_version_is_gone() -> None:
    """A version is gone once it is destroyed, or from the instant of its deletion on."""
    assert not State(created_at=1).gone(9)
    assert not State(created_at=1, deleted_at=10).gone(9)
    assert State(created_at=1, deleted_at=9).gone(9)
    assert State(created_at=1, destroyed=True).gone(9)


def test_check_and_set() -> None:
    """The version must be the newest, and must be said where the secret or the mount demands it."""
    head = _head(current_version=3)
    check_cas(head, Settings(), 3)
    check_cas(head, Settings(), None)
    check_cas(_head(), Settings(cas_required=True), 0)
    for cas in (0, 2, 4, -1):
        with pytest.raises(CasMismatch):
            check_cas(head, Settings(), cas)
    for one, settings in (
        (replace(head, cas_required=True), Settings()),
        (head, Settings(cas_required=True)),
    ):
        with pytest.raises(InvalidRequest, match="check-and-set parameter required for this call"):
            check_cas(one, settings, None)


def test_settings() -> None:
    """Numbers of versions are bounded, and durations may be negative for a mount only."""
    assert [checked_versions(n) for n in (0, 1, MOST_VERSIONS)] == [0, 1, MOST_VERSIONS]
    for wrong in (-1, MOST_VERSIONS + 1):
        with pytest.raises(InvalidRequest, match="max_versions"):
            checked_versions(wrong)
    assert [mount_duration(text) for text in ("", 0, "90", "1h", "-1s", -5, "-0s")] == [
        0,
        0,
        90,
        3600,
        NEVER,
        NEVER,
        0,
    ]
    assert [duration_text(n) for n in (0, 90, NEVER)] == ["0s", "1m30s", "-1s"]
    with pytest.raises(InvalidRequest):
        mount_duration("--1s")


def test_custom_metadata() -> None:
    """Text by text, numbers written as text, within Vault's limits in bytes."""
    assert checked_metadata({}) == ""
    assert checked_metadata({"b": 1.5, "a": True, "ü": "ß"}) == '{"a":"1","b":"1.5","ü":"ß"}'
    assert checked_metadata({"é" * 64: "é" * 256})
    assert checked_metadata({str(n): "x" for n in range(64)})
    for wrong in (
        {str(n): "x" for n in range(65)},
        {"": "x"},
        {"x": ""},
        {"x": None},
        {"é" * 65: "x"},
        {"x": "é" * 257},
        {"x\n": "x"},
        {"x": "\x1b[2J"},
        {"x": "\u202e"},
        {"x": ["y"]},
        {"x": {"y": "z"}},
    ):
        with pytest.raises(InvalidRequest, match="custom_metadata validation failed"):
            checked_metadata(wrong)
