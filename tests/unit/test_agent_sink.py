"""Putting files where they belong, and refusing where that is not safe."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.settings import TemplateSettings
from agent.sink import Sink, Written
from secrethub.errors import Misconfigured, NotFound, Unavailable

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
NOBODY_ELSE = 12_345


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def put(
    destination: Path, content: bytes, told: Callable[[], None] = lambda: None, **other: object
) -> Written:
    """Deliver to a destination."""
    settings = TemplateSettings(destination=destination, content="", **other)  # type: ignore[arg-type]
    return Sink(settings=settings).put(content, told)


def test_the_second_time_nothing_happens(tmp_path: Path) -> None:
    """The same content with the same owner and mode leaves the very file in place."""
    file = tmp_path / "file"
    assert put(file, b"a") is Written.CONTENT
    inode = file.stat().st_ino
    assert put(file, b"a") is Written.UNCHANGED
    assert file.stat().st_ino == inode
    assert stat.S_IMODE(file.stat().st_mode) == 0o400


def test_a_wrong_mode_is_put_right(tmp_path: Path) -> None:
    """The same content with another mode counts as no change of content."""
    file = tmp_path / "file"
    put(file, b"a")
    file.chmod(0o644)
    assert put(file, b"a") is Written.ATTRIBUTES
    assert stat.S_IMODE(file.stat().st_mode) == 0o400


def test_what_depends_on_a_change_is_told_before_it(tmp_path: Path) -> None:
    """The notice comes while the old content is still there, and only when content changes."""
    file, seen = tmp_path / "file", []
    put(file, b"a")
    put(file, b"a", lambda: seen.append(file.read_bytes()))
    put(file, b"b", lambda: seen.append(file.read_bytes()))
    assert seen == [b"a"]
    assert file.read_bytes() == b"b"


def test_the_file_before_is_kept_on_request(tmp_path: Path) -> None:
    """With a backup the old content is beside the new, protected the same way."""
    file = tmp_path / "file"
    put(file, b"a", backup=True)
    put(file, b"b", backup=True)
    kept = tmp_path / "file.bak"
    assert (kept.read_bytes(), file.read_bytes()) == (b"a", b"b")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400


@pytest.mark.parametrize("kind", ["symlink", "folder", "pipe", "dangling"])
def test_nothing_but_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    """A destination that is something else is refused and left as it is."""
    file, target = tmp_path / "file", tmp_path / "target"
    match kind:
        case "symlink":
            target.write_text("untouched")
            file.symlink_to(target)
        case "dangling":
            file.symlink_to(target)
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
    with pytest.raises(Misconfigured):
        put(file, b"canary")
    assert not target.exists() or target.read_text() == "untouched"
    assert file.is_symlink() is (kind in {"symlink", "dangling"})


def test_a_backup_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """A symlink where the backup would go is refused, and nothing is changed."""
    file, target = tmp_path / "file", tmp_path / "target"
    put(file, b"a")
    (tmp_path / "file.bak").symlink_to(target)
    with pytest.raises(Misconfigured):
        put(file, b"b", backup=True)
    assert file.read_bytes() == b"a"
    assert not target.exists()


def test_a_folder_behind_a_symlink_is_refused(tmp_path: Path) -> None:
    """A symlink among the folders is refused, wherever it points."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Misconfigured, match="symbolic link"):
        put(tmp_path / "link" / "file", b"canary")
    assert names(tmp_path / "real") == []


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    """No folder is made on the way: whose would it be?"""
    with pytest.raises(NotFound):
        put(tmp_path / "none" / "file", b"a")


@pytest.mark.parametrize(("mode", "fine"), [(0o777, False), (0o1777, True), (0o775, True)])
def test_a_folder_that_everybody_may_write_is_refused(tmp_path: Path, mode: int, fine: bool) -> None:
    """Unless it is sticky, like /tmp, where nobody can move another's files."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    if fine:
        put(folder / "file", b"a")
    else:
        with pytest.raises(Misconfigured, match="written by everybody"):
            put(folder / "file", b"a")
        assert names(folder) == []


@as_root
def test_the_owner_gets_the_file_and_nobody_else_the_content(tmp_path: Path) -> None:
    """Owner, group and mode are as set."""
    file = tmp_path / "file"
    put(file, b"a", uid=NOBODY_ELSE, gid=NOBODY_ELSE + 1, mode=0o440)
    status = file.stat()
    assert (status.st_uid, status.st_gid) == (NOBODY_ELSE, NOBODY_ELSE + 1)
    assert stat.S_IMODE(status.st_mode) == 0o440


@as_root
def test_root_does_not_write_into_a_strangers_folder(tmp_path: Path) -> None:
    """A folder may belong to root or to the file's owner, not to somebody else."""
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, NOBODY_ELSE, NOBODY_ELSE)
    with pytest.raises(Misconfigured, match=f"uid {NOBODY_ELSE}"):
        put(folder / "file", b"canary")
    assert names(folder) == []
    put(folder / "file", b"a", uid=NOBODY_ELSE)
    assert (folder / "file").stat().st_uid == NOBODY_ELSE


def test_leftovers_are_swept_at_the_next_delivery(tmp_path: Path) -> None:
    """What a killed agent left half written is gone after the next delivery."""
    (tmp_path / ".file.secrethub-0123").write_text("half a canary")
    put(tmp_path / "file", b"a")
    assert names(tmp_path) == ["file"]


def test_a_folder_with_such_a_name_blocks_nothing(tmp_path: Path) -> None:
    """In a folder that everybody may write, a name that cannot be swept does not stop a delivery."""
    tmp_path.chmod(0o1777)
    (tmp_path / ".file.secrethub-x").mkdir()
    assert put(tmp_path / "file", b"a") is Written.CONTENT


def test_no_backup_is_made_of_a_file_with_two_names(tmp_path: Path) -> None:
    """Whoever owns the folder could have linked a file there that only root may read."""
    (tmp_path / "private").write_bytes(b"canary")
    (tmp_path / "file").hardlink_to(tmp_path / "private")
    told: list[bool] = []
    with pytest.raises(Misconfigured, match="hard link"):
        put(tmp_path / "file", b"a", lambda: told.append(True), backup=True)
    assert (names(tmp_path), told) == (["file", "private"], [])
    assert put(tmp_path / "file", b"a") is Written.CONTENT
    assert (tmp_path / "private").read_bytes() == b"canary"


def test_a_full_disk_leaves_the_last_good_file(tmp_path: Path) -> None:
    """When the new file cannot be written, the old one stays and nothing else remains."""
    file = tmp_path / "file"
    put(file, b"a")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Unavailable):
            put(file, b"b" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_bytes() == b"a"
    assert names(tmp_path) == ["file"]
