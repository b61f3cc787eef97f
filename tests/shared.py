"""Clusters that several tests share, ended with the last test that asks for them and not with the session.

A cluster in which nothing happens takes a fifth of a processor, from all tests that come after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

_Fixture = tuple[str, Path]
"""Its name, and the folder whose tests know it: elsewhere another one may have the same name."""
_OPEN = pytest.StashKey[dict[_Fixture, contextlib.ExitStack]]()


@contextlib.contextmanager
def until_last_use(request: pytest.FixtureRequest, folder: Path) -> Iterator[contextlib.ExitStack]:
    """Give a session's fixture a stack that is closed after the last test in ``folder`` that uses it."""
    with contextlib.ExitStack() as stack:
        request.session.stash.setdefault(_OPEN, {})[str(request.fixturename), folder] = stack
        yield stack


def end_unused(item: pytest.Item) -> None:
    """Close the stacks of the fixtures whose last test was ``item``."""
    opened = item.session.stash.get(_OPEN, {})
    for fixture in [fixture for fixture in opened if _last_user(item.session, *fixture) is item]:
        opened.pop(fixture).close()


def _last_user(session: pytest.Session, name: str, folder: Path) -> pytest.Item | None:
    using = (
        item
        for item in reversed(session.items)
        if item.path.is_relative_to(folder) and name in getattr(item, "fixturenames", ())
    )
    return next(using, None)
