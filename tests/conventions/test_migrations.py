"""Migrations are one chain, in the order of their files."""

from __future__ import annotations

import re
from pathlib import Path

VERSIONS = Path(__file__).parents[2] / "secrethub/storage/migrations/versions"


def test_each_migration_follows_the_one_before_it() -> None:
    """A migration has its file's number and follows the one before: no two are made for the same place."""
    before = "None"
    for number, path in enumerate(sorted(VERSIONS.glob("[0-9]*.py")), start=1):
        own = f'"{number:04}"'
        assert path.name.startswith(f"{number:04}_"), path.name
        said = dict(re.findall(r"^(revision|down_revision) = (.+)$", path.read_text(), re.MULTILINE))
        assert said == {"revision": own, "down_revision": before}, path.name
        before = own
