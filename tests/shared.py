"""Clusters that several tests share, ended with the last test that asks for them and not with the session.

A cluster in which nothing happens takes a fifth of a processor, from all tests that come after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

_OPEN = pytest.StashKey[dict[str, contextlib.ExitStack]]()


@contextlib.contextmanager
def until_last_use(request: pytest.FixtureRequest) -> Iterator[contextlib.ExitStack]:
    """Give a session's fixture a stack that is closed after the last of this session's tests that uses it.

    Tests are asked for it by its name: no other fixture of this session may have the same.
    """
    with contextlib.ExitStack() as stack:
        request.session.stash.setdefault(_OPEN, {})[str(request.fixturename)] = stack
        yield stack


def end_unused(item: pytest.Item) -> None:
    """Close the stacks of the fixtures whose last test was ``item``."""
    opened = item.session.stash.get(_OPEN, {})
    for name in [name for name in opened if _last_user(item.session, name) is item]:
        opened.pop(name).close()


def _last_user(session: pytest.Session, name: str) -> pytest.Item | None:
    using = (item for item in reversed(session.items) if name in getattr(item, "fixturenames", ()))
    return next(using, None)
