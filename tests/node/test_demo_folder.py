"""Folders of demos that were killed: removed by the next demo, and only they."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from cluster.demo.folder import Folder, remove_dead


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def test_what_a_dead_demo_left_is_removed(tmp_path: Path) -> None:
    """Its folder goes, with what it kept elsewhere; a living demo's stays."""
    living, dead = Folder(), Folder()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "run").mkdir(parents=True)
    (dead.path / "core" / "state").mkdir(parents=True)
    (dead.path / "core" / "state" / "run-dir").symlink_to(elsewhere / "run")
    # As after its end by SIGKILL: the lock is free, the folder is there.
    os.close(dead.lock)
    assert remove_dead() == [dead.path]
    assert not dead.path.exists()
    assert not (elsewhere / "run").exists()
    assert living.path.exists()
    assert living.remove() == []
    assert remove_dead() == []


def test_a_lock_lasts_as_long_as_anything_of_the_demo(tmp_path: Path) -> None:
    """What `--keep` leaves running holds the lock, so the folder is not a dead demo's."""
    kept = Folder()
    inherited = os.dup(kept.lock)
    os.close(kept.lock)
    assert remove_dead() == []
    os.close(inherited)
    assert remove_dead() == [kept.path]


def test_other_people_s_folders_are_left_alone(tmp_path: Path) -> None:
    """A folder without a lock, or of another user, is none of ours."""
    (tmp_path / "tmp" / "shdemo-strange").mkdir()
    foreign = Folder()
    if os.geteuid() == 0:
        os.chown(foreign.path, 65534, 65534)
    os.close(foreign.lock)
    assert remove_dead() == ([] if os.geteuid() == 0 else [foreign.path])
    assert (tmp_path / "tmp" / "shdemo-strange").exists()
