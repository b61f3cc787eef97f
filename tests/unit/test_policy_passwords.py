"""Password policies: what is read, what is refused, and what passwords look like."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.policy.passwords import CharsetRule, PasswordPolicy, parse_password_policy

TWO = """
length = 20
rule "charset" { charset = "abcdefghij" }
rule "charset" {
  charset = "0123456789"  # at least three
  min-chars = 3
}
"""
LETTERS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)


def test_both_spellings() -> None:
    """HCL and each JSON form of it are the same policy; a character that stands twice counts once."""
    expected = PasswordPolicy(
        length=20,
        rules=(CharsetRule(charset="abcdefghij"), CharsetRule(charset="0123456789", min_chars=3)),
    )
    bodies = [{"charset": "abcdefghijabc"}, {"charset": "0123456789", "min-chars": 3}]
    listed = {"length": 20, "rule": [{"charset": body} for body in bodies]}
    nested = {"length": 20, "rule": {"charset": bodies}}
    for source in (TWO, json.dumps(listed), json.dumps(nested)):
        assert parse_password_policy(source) == expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "is empty"),
        ("length = 20", '"rule" is missing'),
        ('rule "charset" { charset = "ab" }', '"length" is missing'),
        ('length = 3 rule "charset" { charset = "ab" }', "from 4 to 100"),
        ('length = 101 rule "charset" { charset = "ab" }', "from 4 to 100"),
        ('length = true rule "charset" { charset = "ab" }', "whole number"),
        ('length = "20" rule "charset" { charset = "ab" }', "whole number"),
        ('length = 20 rule "charset" { charset = "" }', "from 1 to 4096"),
        ('length = 20 rule "charset" { charset = "a\\n" }', "cannot be printed"),
        ('length = 20 rule "charset" { charset = "a\\u0000" }', "NUL"),
        ('length = 20 rule "charset" { charset = "ab" min-chars = -1 }', "from 0 to 100"),
        ('length = 20 rule "charset" { charset = "ab" min-chars = 21 }', "more characters"),
        ('length = 20 rule "charset" { charset = "ab" max-chars = 2 }', "unknown key"),
        ('length = 20 rule "regex" { charset = "ab" }', "unknown key"),
        ('length = 20 rule "charset" { charset = "ab" } then = 1', "unknown key"),
        ("length = 20 rule = []", "from 1 to 32 rules"),
        ('{"length": 20, "length": 4, "rule": []}', "twice"),
        ("length = 20" + ' rule "charset" { charset = "a" }' * 33, "from 1 to 32 rules"),
    ],
)
def test_refused(source: str, why: str) -> None:
    """What could not be met or is not understood is no policy."""
    with pytest.raises(InvalidRequest, match=why):
        parse_password_policy(source)


@given(st.lists(LETTERS, min_size=1, max_size=5), st.data())
def test_passwords_meet_their_policy(charsets: list[str], data: st.DataObject) -> None:
    """Whatever the rules are, a password has its length, its characters, and enough of each rule's."""
    length = data.draw(st.integers(4, 100))
    counts = [data.draw(st.integers(0, length // len(charsets))) for _ in charsets]
    rules = [
        {"charset": {"charset": charset, "min-chars": count}}
        for charset, count in zip(charsets, counts, strict=True)
    ]
    policy = parse_password_policy(json.dumps({"length": length, "rule": rules}))
    made = policy.generate(secrets.randbelow)
    assert len(made) == length
    assert set(made) <= set("".join(charsets))
    for charset, count in zip(charsets, counts, strict=True):
        assert sum(character in charset for character in made) >= count


def test_every_character_at_every_place() -> None:
    """What a rule asks for may stand anywhere, and every character comes."""
    policy = parse_password_policy(
        'length = 4 rule "charset" { charset = "ab" } rule "charset" { charset = "1" min-chars = 1 }'
    )
    made = {policy.generate(secrets.randbelow) for _ in range(5000)}
    # All texts of a, b and 1 with at least one 1; the rarest comes once in 128.
    assert len(made) == 3**4 - 2**4


def test_the_shuffle_is_even() -> None:
    """Each order of the drawn characters comes from as many throws of the dice as every other."""
    policy = PasswordPolicy(
        length=4, rules=tuple(CharsetRule(charset=letter, min_chars=1) for letter in "abcd")
    )
    orders: Counter[str] = Counter()
    for first in range(4):
        for second in range(3):
            for third in range(2):
                throws = cycle([0, 0, 0, 0, first, second, third])
                orders[policy.generate(lambda _below, throws=throws: next(throws))] += 1
    assert len(orders) == 24
    assert set(orders.values()) == {1}


def test_bits() -> None:
    """Entropy is counted from below, so no policy looks stronger than it is."""
    policy = parse_password_policy('length = 8 rule "charset" { charset = "abcdefgh" min-chars = 3 }')
    assert policy.bits == pytest.approx(24)
    mixed = parse_password_policy(
        'length = 4 rule "charset" { charset = "ab" min-chars = 4 } rule "charset" { charset = "cd" }'
    )
    assert mixed.bits == pytest.approx(4)
