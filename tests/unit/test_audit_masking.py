"""Masked values: the shape stays, the values do not."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.audit.masking import MAX_DEPTH, MAX_PLAIN, MAX_SIZE, canonical_json, mask, mask_leaf

KEY = b"m" * 32
MASK = re.compile(r"hmac-sha256:[0-9a-f]{64}")


def is_mask(value: object) -> bool:
    """Tell whether ``value`` is a mask."""
    return isinstance(value, str) and MASK.fullmatch(value) is not None


def test_shape_and_keys_stay() -> None:
    """Objects, lists, keys and null stay, every other value becomes a mask."""
    masked = mask({"a": "x", "b": [1, None, {"c": True}], "d": {}, "e": [], "f": 1.5}, KEY)
    assert list(masked) == ["a", "b", "d", "e", "f"]
    assert masked["b"][1] is None
    assert (masked["d"], masked["e"]) == ({}, [])
    assert all(map(is_mask, [masked["a"], masked["b"][0], masked["b"][2]["c"], masked["f"]]))
    assert mask(None, KEY) is None
    assert is_mask(mask("", KEY))


def test_types_mask_differently() -> None:
    """Values of different types never share a mask, though they print alike."""
    leaves: list[Any] = [
        1,
        "1",
        True,
        1.0,
        b"1",
        0,
        "0",
        False,
        0.0,
        -0.0,
        b"0",
        "",
        b"",
        "true",
        "None",
        10**400,
    ]
    leaves += [
        "2026-01-01T00:00:00+00:00",
        datetime(2026, 1, 1, tzinfo=UTC),
        float("nan"),
        "nan",
        "\ud800",
        "s",
        "i1",
    ]
    assert len({mask(leaf, KEY) for leaf in leaves}) == len(leaves)
    assert mask("x", KEY) == mask("x", KEY) == mask_leaf("x", KEY) != mask("x", b"n" * 32)
    assert mask_leaf(None, KEY) is None


def test_other_types_are_a_mistake() -> None:
    """A value that is no JSON is refused rather than written in the clear."""
    for value in (object(), {1, 2}, KEY.__class__, [object()]):
        with pytest.raises(TypeError):
            mask(value, KEY)


def test_plain_places_stay_readable() -> None:
    """Only the named places from the root stay readable, not the same names elsewhere."""
    body = {
        "ttl": "1h",
        "uses": 3,
        "deep": {"ttl": "1h", "on": True},
        "tags": ["a", "b"],
        "options": {"cas": 2, "x": 1},
        "deep.on": "secret",
        "data": {"ttl": "secret", "cas": 7},
    }
    masked = mask(body, KEY, frozenset({"ttl", "uses", "tags", "options.cas", "deep.on", "data"}))
    assert (masked["ttl"], masked["uses"], masked["tags"]) == ("1h", 3, ["a", "b"])
    assert masked["options"]["cas"] == 2
    assert masked["deep"]["on"] is True
    for value in (masked["deep"]["ttl"], masked["options"]["x"], masked["deep.on"], *masked["data"].values()):
        assert is_mask(value)


def test_plain_places_that_contain_each_other() -> None:
    """A readable place and one below it do not disturb each other."""
    masked = mask({"a": {"b": 1}, "c": 2}, KEY, frozenset({"a", "a.b", "c", "c.d"}))
    assert masked["c"] == 2
    assert mask({"a": 5}, KEY, frozenset({"a", "a.b"})) == {"a": 5}


def test_plain_values_are_bounded() -> None:
    """Readable strings, numbers and lists that are too long are masked after all."""
    plain = frozenset({"a"})
    assert mask({"a": "x" * MAX_PLAIN}, KEY, plain)["a"] == "x" * MAX_PLAIN
    assert is_mask(mask({"a": "x" * (MAX_PLAIN + 1)}, KEY, plain)["a"])
    assert is_mask(mask({"a": 10**30}, KEY, plain)["a"])
    assert is_mask(mask({"a": float("inf")}, KEY, plain)["a"])
    assert len(canonical_json(mask({"a": ["\x00" * MAX_PLAIN] * 300}, KEY, plain))) <= MAX_SIZE + 100


def nested(depth: int) -> Any:
    """Return lists and objects within each other."""
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def test_depth_is_bounded() -> None:
    """What lies too deep is covered by one mask, which still depends on its content."""
    masked = mask(nested(MAX_DEPTH + 1), KEY)
    for _ in range(MAX_DEPTH):
        masked = masked[0] if isinstance(masked, list) else masked["k"]
    assert is_mask(masked)
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 500, 100_000):
        assert canonical_json(mask(nested(depth), KEY)).count("hmac-sha256:") == 1
    lists: Any = 1
    objects: Any = 1
    for _ in range(5000):
        lists, objects = [lists], {"k": objects}
    assert canonical_json(mask(lists, KEY)).count("[") == MAX_DEPTH
    assert canonical_json(mask(objects, KEY)).count('"k"') == MAX_DEPTH
    other = json.loads(json.dumps(nested(100)).replace("x", "y"))
    assert mask(other, KEY) != mask(nested(100), KEY)


@pytest.mark.parametrize(
    "value",
    [
        {f"key{number}": number for number in range(100_000)},
        list(range(100_000)),
        [[[number] * 10] * 10 for number in range(100)],
        {"k" * 100_000: 1},
        {"\x00" * 10_000: 1},
        {"a": {f"k{number}": {"x" * 50: number} for number in range(300)}},
        ["x" * 1_000_000],
    ],
)
def test_size_is_bounded(value: Any) -> None:
    """Whatever is sent, its mask stays small and still depends on all of it."""
    text = canonical_json(mask(value, KEY))
    assert len(text) <= MAX_SIZE + 100
    assert text.isascii()


def test_what_does_not_fit_still_counts() -> None:
    """Two large values that differ in one place have different masks."""
    one, two = list(range(10_000)), list(range(10_000))
    two[5_000] += 1
    assert is_mask(mask(one, KEY))
    assert mask(one, KEY) != mask(two, KEY)
    assert mask({"a": one, "b": 1}, KEY) == {"a": mask(one, KEY), "b": mask(1, KEY)}
    assert mask(dict.fromkeys(map(str, one)), KEY) == mask(dict.fromkeys(map(str, reversed(one))), KEY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def leaves(value: Any) -> list[Any]:
    """Return the leaves of a decoded JSON value."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


@given(JSON)
def test_no_value_stays(value: Any) -> None:
    """Every leaf of any JSON is null or a mask, and the result is canonical ASCII JSON."""
    masked = mask(value, KEY)
    assert all(leaf is None or is_mask(leaf) for leaf in leaves(masked))
    assert len(leaves(masked)) == len(leaves(value))
    text = canonical_json(masked)
    assert text.isascii()
    assert text.isprintable()
    assert canonical_json(json.loads(text)) == text


def test_canonical_json_is_one_text() -> None:
    """The same value gives the same text, whatever the order of its keys, and nothing unprintable."""
    assert canonical_json({"b": 1, "a": [True, None, 1.5, "é\n\u202e"]}) == (
        '{"a":[true,null,1.5,"\\u00e9\\n\\u202e"],"b":1}'
    )
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    """Numbers that JSON lacks, endless nesting and other types are refused."""
    for value in (float("nan"), float("inf"), nested(100_000)):
        with pytest.raises(ValueError, match=r"JSON|nested"):
            canonical_json(value)
    with pytest.raises(TypeError):
        canonical_json({"a": object()})
