"""The canonical form of paths: what has one, and what is refused."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidPath
from secrethub.wire.canonical_path import (
    MAX_PATH_BYTES,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    check_path,
    parse_path,
)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"sys", "sys"),
        (b"secret/data/prod/db", "secret/data/prod/db"),
        (b"secret/metadata/prod/", "secret/metadata/prod"),
        (b"secret/data/a%20b", "secret/data/a b"),
        (b"secret/data/%C3%A9t%C3%A9", "secret/data/été"),
        ("secret/data/été".encode(), "secret/data/été"),
        (b"secret/data/a+b", "secret/data/a+b"),
        (b"secret/data/%3F%23%25", "secret/data/?#%"),
        (b"secret/data/%252e%252e", "secret/data/%2e%2e"),
        (b"secret/data/%252f", "secret/data/%2f"),
        (b"secret/data/...", "secret/data/..."),
        (b"secret/data/.hidden/..x", "secret/data/.hidden/..x"),
        (b"secret/data/a\\b", "secret/data/a\\b"),
    ],
)
def test_canonical(raw: bytes, canonical: str) -> None:
    """A path is decoded once and loses at most one trailing slash."""
    assert parse_path(raw) == canonical


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "empty"),
        (b"/", "empty"),
        (b"//", "segment 1 of the path is empty"),
        (b"/secret", "segment 1 of the path is empty"),
        (b"secret//db", "segment 2 of the path is empty"),
        (b"secret/db//", "segment 3 of the path is empty"),
        (b"secret/./db", "segment 2 of the path is '.'"),
        (b"secret/..", "segment 2 of the path is '..'"),
        (b"secret/%2e%2E/sys", "segment 2 of the path is '..'"),
        (b"secret/.%2e/", "segment 2 of the path is '..'"),
        (b"secret%2Fdata", "encoded slash"),
        (b"secret/a%2fb", "encoded slash"),
        (b"secret/%2F", "encoded slash"),
        (b"secret/%", "percent sign"),
        (b"secret/%4", "percent sign"),
        (b"secret/%zz", "percent sign"),
        (b"secret/%%41", "percent sign"),
        (b"secret/a\x00b", "control character"),
        (b"secret/a%00b", "control character"),
        (b"secret/a%0Ab", "control character"),
        (b"secret/a%7F", "control character"),
        (b"secret/a%C2%85", "control character"),
        (b"secret/%E2%80%A8", "line separator"),
        (b"secret/%E2%80%A9", "line separator"),
        (b"secret/%E2%80%AE", "bidirectional"),
        (b"secret/%E2%81%A7", "bidirectional"),
        (b"secret/%D8%9C", "bidirectional"),
        (b"secret/%E2%80%8F", "bidirectional"),
        (b"secret/%F4%8F%BF%BFx", "no character"),
        (b"secret/%EF%BF%BE", "no character"),
        (b"secret/%EF%B7%90", "no character"),
        (b"secret/e%CC%81", "NFC"),
        (b"secret/%E2%84%AB", "NFC"),
        (b"secret/%FF", "UTF-8"),
        (b"secret/%C0%AF", "UTF-8"),
        (b"secret/%C0%AE%C0%AE", "UTF-8"),
        (b"secret/%ED%A0%80", "UTF-8"),
        (b"secret/\xe9", "UTF-8"),
    ],
)
def test_refused(raw: bytes, says: str) -> None:
    """A path without a canonical form is refused, and the message says why."""
    with pytest.raises(InvalidPath, match=says):
        parse_path(raw)


def test_limits_count_decoded_bytes() -> None:
    """The limits of a segment and of the whole path count decoded bytes and are met exactly."""
    segment = "é" * (MAX_SEGMENT_BYTES // 2)
    assert parse_path(quote(segment).encode()) == segment
    assert parse_path(segment.encode() + b"/") == segment
    with pytest.raises(InvalidPath, match="segment 1 of the path is longer"):
        parse_path(segment.encode() + b"x")
    longest = "/".join(["a" * 1023] * 2) + "b"
    assert len(longest) == MAX_PATH_BYTES
    assert parse_path(longest.encode() + b"/") == longest
    for raw in (
        longest.encode() + b"b",
        quote("é" * MAX_PATH_BYTES).encode(),
        b"%41" * 10_000,
        b"a" * 10_000,
    ):
        with pytest.raises(InvalidPath, match="longer"):
            parse_path(raw)
    assert parse_path(b"/".join([b"a"] * MAX_SEGMENTS)).count("/") == MAX_SEGMENTS - 1
    with pytest.raises(InvalidPath, match="segments"):
        parse_path(b"/".join([b"a"] * (MAX_SEGMENTS + 1)))


def test_text_takes_the_same_rules_without_decoding() -> None:
    """Text is checked by the same rules, and a percent sign in it is a percent sign."""
    assert check_path("secrets/prod/50%/") == "secrets/prod/50%"
    for text in (
        "",
        "/",
        "/a",
        "a//b",
        "a/../b",
        "a\nb",
        "e\u0301",
        "\ud800",
        "x" * 1025,
        "x/" * 3000,
        "/".join(["é" * 500] * 5),
    ):
        with pytest.raises(InvalidPath):
            check_path(text)


@given(st.binary(max_size=60))
def test_whatever_comes_is_canonical_or_refused(raw: bytes) -> None:
    """No bytes raise anything but InvalidPath, and what is accepted is canonical for good."""
    try:
        path = parse_path(raw)
    except InvalidPath:
        return
    assert check_path(path) == path
    assert parse_path(quote(path).encode()) == path
    assert not {"", ".", ".."} & set(path.split("/"))
    assert unicodedata.is_normalized("NFC", path)
    assert not any(unicodedata.category(c) in {"Cc", "Zl", "Zp"} for c in path)


@given(st.lists(st.text("abé%+*\u202e.\x1f", min_size=1, max_size=4), min_size=1, max_size=5))
def test_one_name_one_path(segments: list[str]) -> None:
    """However a path is escaped, its canonical form is the same."""
    path = "/".join(segments)
    try:
        expected = check_path(path)
    except InvalidPath:
        with pytest.raises(InvalidPath):
            parse_path(quote(path).encode())
        return
    everything = "/".join("".join(f"%{byte:02x}" for byte in part.encode()) for part in segments)
    assert parse_path(quote(path).encode()) == expected == parse_path(everything.encode())
