"""Unit tests of actors run without Ray: an actor is a plain class."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _without_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make any use of Ray in a unit test of an actor fail at once: it cannot even be imported."""
    if request.path.name.startswith(("test_actor_", "test_restart")):
        monkeypatch.setitem(sys.modules, "ray", None)
