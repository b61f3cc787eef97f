"""Secrets that must turn up nowhere, and the search for them, in every form they could have taken."""

from __future__ import annotations

import asyncio
import base64
import mmap
import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import asyncpg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cluster.demo.processes import descendants
from secrethub.crypto.keyring import Keyring
from secrethub.operations.seal_lifecycle import open_keyring
from secrethub.seal.slots import open_slot
from secrethub.storage.database import Database
from secrethub.storage.seal_slots import load_slots

_SLICE = 16
"""Bytes of a key that are looked for together: whatever splits it into lines leaves one of them whole."""
_WORD = 8
"""Bytes that are compared at once."""
_NOTHING = bytes(1 << 15)
"""Most of what PostgreSQL keeps is empty pages."""
_WHOLE_WORD = 2 * _WORD - 1
"""Bytes; what is so long holds a word that begins at a multiple of words, wherever it lies."""


class Canaries:
    """What is looked for, where each may lie, and where it was found all the same."""

    def __init__(self) -> None:
        self._forms: dict[bytes, str] = {}
        self._short: set[bytes] = set()
        self._words: defaultdict[int, set[bytes]] = defaultdict(set)
        self._allowed: dict[str, set[Path]] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def value(self, what: str) -> str:
        """Make a secret, remember it and return it."""
        made = f"canary{secrets.token_hex(12)}"
        self.text(what, made)
        return made

    def text(self, what: str, value: str, *allowed: Path) -> str:
        """Remember a secret text; it may lie in the files ``allowed``."""
        self._remember(what, value.encode(), allowed)
        return value

    def key(self, what: str, value: bytes, *allowed: Path) -> None:
        """Remember secret bytes."""
        for start in range(0, len(value) - _SLICE + 1, _SLICE):
            self._remember(what, value[start : start + _SLICE], allowed)

    def private_key(self, what: str, pem: str, *allowed: Path) -> None:
        """Remember what is secret in a private key; the rest is in every certificate."""
        key = serialization.load_pem_private_key(pem.encode(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            number = key.private_numbers().private_value
        elif isinstance(key, rsa.RSAPrivateKey):
            number = key.private_numbers().p
        else:
            raise TypeError(type(key).__name__)
        self.key(what, number.to_bytes((number.bit_length() + 7) // 8, "big"), *allowed)

    def cluster(self, database_url: str, shares: Iterable[bytes], *allowed: Path) -> None:
        """Remember the shares, which may lie in the files ``allowed``, and every key that they lead to."""
        given = list(shares)
        for share in given:
            self.key("unseal share", share, *allowed)
        for what, key in asyncio.run(_keys(database_url, given)):
            self.key(what, key)

    def within(self, where: str, data: bytes | mmap.mmap) -> Iterator[str]:
        """Say which secrets are in ``data``."""
        for form in self._suspects(data):
            what, at = self._forms[form], data.find(form)
            if at >= 0 and Path(where) not in self._allowed[what]:
                yield f"{what} in {where}, at byte {at}"

    def in_files(self, *folders: Path) -> list[str]:
        """Search all files below the folders, by whatever name."""
        found: list[str] = []
        for path in sorted(path for folder in folders for path in folder.rglob("*")):
            if not path.is_file() or path.is_symlink() or not path.stat().st_size:
                continue
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found += self.within(str(path), data)
        return found

    def in_processes(self, *roots: int) -> list[str]:
        """Search arguments and environments of processes and of all below them."""
        found: list[str] = []
        for root in roots:
            for pid in (root, *descendants(root)):
                for name in ("cmdline", "environ"):
                    path = Path(f"/proc/{pid}/{name}")
                    try:
                        data = path.read_bytes()
                    except (FileNotFoundError, ProcessLookupError):
                        continue
                    except PermissionError:
                        # Our processes are not dumpable: not even their own user may look.
                        assert os.geteuid() != 0
                        continue
                    found += self.within(str(path), data)
        return found

    def in_database(self, url: str) -> list[str]:
        """Search the bytes of every row of every table, and the statements of every session."""
        return [line for where, data in asyncio.run(dump(url)) for line in self.within(where, data)]

    def _remember(self, what: str, value: bytes, allowed: Iterable[Path]) -> None:
        self._allowed.setdefault(what, set()).update(allowed)
        for form in _forms(value):
            self._forms[form] = what
            if len(form) < _WHOLE_WORD:
                self._short.add(form)
            else:
                for start in range(_WORD):
                    self._words[int.from_bytes(form[start : start + _WORD], sys.byteorder)].add(form)

    def _suspects(self, data: bytes | mmap.mmap) -> set[bytes]:
        """Return the forms of which a word is in ``data``, and those that are too short for that.

        A thousand searches, one for each form, would take a minute for some ten megabytes.
        """
        there: set[int] = set()
        with memoryview(data) as whole:
            for start in range(0, len(whole), len(_NOTHING)):
                with whole[start : start + len(_NOTHING)] as part, part[: len(part) // _WORD * _WORD] as even:
                    if part != _NOTHING:
                        with even.cast("Q") as words:
                            there.update(filter(self._words.__contains__, words))
        return self._short.union(*(self._words[word] for word in there))


def _forms(value: bytes) -> Iterator[bytes]:
    """Return the bytes themselves, in hexadecimal digits, and in base64 wherever it may begin."""
    yield value
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value + bytes(2))
        # The first and last characters also depend on what stands beside the value.
        first, last = -(-before * 8 // 6), (before + len(value)) * 8 // 6
        yield encoded[first:last]
        yield encoded[first:last].translate(bytes.maketrans(b"+/", b"-_"))


async def _keys(database_url: str, shares: list[bytes]) -> list[tuple[str, bytes]]:
    database = Database(database_url, size=1)
    try:
        slot = (await load_slots(database))[0]
        root = open_slot(slot, shares[: slot.threshold])
        keyring = await open_keyring(database, root)
    finally:
        await database.close()
    exported = keyring.export()
    found = [("root key", root), ("keyring", exported[1:])]
    purposes = ("token", "accessor", "secret-id", "authority", "audit-sign", "audit-mask")
    found += [(f"derived key {purpose}", keyring.derived(purpose)) for purpose in purposes]
    assert Keyring.load(exported).newest == keyring.newest
    return found


async def dump(url: str) -> list[tuple[str, bytes]]:
    """Return the rows of all tables, ours and PostgreSQL's own, as PostgreSQL would write them to a file."""
    connection = await asyncpg.connect(url)
    dumped: list[tuple[str, bytes]] = []
    try:
        tables = await connection.fetch(
            """SELECT n.nspname AS schema, c.relname AS name FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'm') AND n.nspname NOT LIKE 'pg_toast%'"""
        )
        # A table that is cut into parts has its rows in them.
        assert any(row["name"] == "kv_versions" for row in tables)
        assert any(row["name"].startswith("audit_entries") for row in tables)
        for schema, name in tables:
            parts: list[bytes] = []

            async def keep(data: bytes, parts: list[bytes] = parts) -> None:
                parts.append(data)

            # Some of PostgreSQL's own types have no binary form.
            form = "text" if schema in {"pg_catalog", "information_schema"} else "binary"
            await connection.copy_from_table(name, schema_name=schema, output=keep, format=form)
            dumped.append((f"table {schema}.{name}", b"".join(parts)))
        rows = await connection.fetch("SELECT query FROM pg_stat_activity")
        dumped.append(("pg_stat_activity", "\n".join(row["query"] or "" for row in rows).encode()))
    finally:
        await connection.close()
    return dumped
