"""Statements with hostile values, and verifiers, as a real PostgreSQL understands them."""

from __future__ import annotations

import base64
import os

import asyncpg
import pytest

from secrethub.engines.database.scram import verifier
from secrethub.engines.database.statements import render, split
from secrethub.errors import InvalidRequest

HOSTILE = (
    "plain",
    'a"b',
    "a'b",
    '"; DROP TABLE canary; --',
    "'; DROP TABLE canary; --",
    "\\'; DROP TABLE canary; --",
    "\\",
    "{{password}}",
    "a$b",
    "üñï",
    "-- x",
    "/* x",
)


@pytest.mark.parametrize("value", HOSTILE)
async def test_values_stay_values(database_url: str, value: str) -> None:
    """Whatever a value holds, in every place it comes back as it is and nothing else happens."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE TEMP TABLE canary ()")
        values = {"name": value, "password": value}
        for place in ("{{password}}", "'{{password}}'", "E'{{ password }}'", "'a' || '' || '{{password}}'"):
            got = await connection.fetchval(render(f"SELECT {place}", values))
            assert got == ("a" + value if "||" in place else value), place
        for place in ("{{name}}", '"{{name}}"'):
            row = await connection.fetchrow(render(f"SELECT 1 AS {place}", values))
            assert list(row.keys()) == [value], place
        block = "DO $$ BEGIN PERFORM set_config('my.canary', '{{password}}', false); END $$"
        await connection.execute(render(block, values))
        assert await connection.fetchval("SELECT current_setting('my.canary')") == value
        assert await connection.fetchval("SELECT count(*) FROM canary") == 0
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT '{{password}}",
        'SELECT "{{name}}',
        "SELECT {{other}}",
        "SELECT {{na me}}",
        "-- {{name}}\nSELECT 1",
        "/* {{name}} */ SELECT 1",
        "DO $$ '{{password}}'",
        "SELECT U&'{{password}}'",
        'SELECT 1 AS u&"{{name}}"',
        "SELECT E'a' -- more\n '{{password}}'",
    ],
)
def test_refused(statement: str) -> None:
    """Where a value has no safe place the statement is refused, and the value is not in the message."""
    with pytest.raises(InvalidRequest) as caught:
        render(statement, {"name": "canary", "password": "canary"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", ["a$$b", "$$"])
def test_values_do_not_end_blocks(value: str) -> None:
    """A value that would close a dollar quote is refused there."""
    with pytest.raises(InvalidRequest):
        render("DO $$ '{{password}}' $$", {"password": value})


async def test_verifiers_are_postgresqls_own(database_url: str) -> None:
    """What is made here equals what the server makes of the password, and is kept as it is given."""
    connection = await asyncpg.connect(database_url)
    name, password = "sh-verifier", "p4ss'word\"$x\\"
    kept = "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
    change = """ALTER ROLE "{{name}}" PASSWORD '{{password}}'"""
    try:
        await connection.execute("SET password_encryption = 'scram-sha-256'")
        await connection.execute(
            render("CREATE ROLE {{name}} LOGIN PASSWORD {{password}}", {"name": name, "password": password})
        )
        theirs = await connection.fetchval(kept, name)
        iterations, salt = theirs.split("$")[1].split(":")
        ours = verifier(password, base64.b64decode(salt), int(iterations))
        assert ours == theirs
        other = verifier(password, os.urandom(16))
        assert other != theirs
        await connection.execute(render(change, {"name": name, "password": other}))
        assert await connection.fetchval(kept, name) == other
    finally:
        await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
        await connection.close()


@pytest.mark.parametrize("password", ["", "p\u00e4ss", "a\nb"])
def test_only_ascii(password: str) -> None:
    """What SASLprep could change is refused, or the password that is told would not open the door."""
    with pytest.raises(InvalidRequest):
        verifier(password, bytes(16))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("SELECT 1", 1),
        ("SELECT 1; SELECT 2;", 2),
        ('SELECT \';\'; SELECT ";" FROM (SELECT 1 AS ";") x; ;', 2),
        ("DO $$ BEGIN PERFORM 1; PERFORM 2; END $$; SELECT E'\\';'", 2),
        ("SELECT 1 -- ; no end\n; SELECT {{password}}", 2),
        ("-- ;", 1),
    ],
)
def test_texts_are_split_into_statements(text: str, count: int) -> None:
    """A semicolon ends a statement only where the server's lexer says so."""
    found = split(text)
    assert len(found) == count
