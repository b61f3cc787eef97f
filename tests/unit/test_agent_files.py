"""Files in folders of others: nothing is followed, nothing is half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent import files
from agent.files import Attributes
from secrethub.errors import Misconfigured, NotFound, TooLarge

OWN = Attributes(uid=os.geteuid(), gid=os.getegid(), mode=0o640)
both_ways = pytest.mark.parametrize("kernel", [True, False], ids=["openat2", "walk"])


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@both_ways
def test_a_plain_folder_opens(tmp_path: Path, kernel: bool) -> None:
    """A folder that is reached without symlinks opens, by the kernel's way and by walking."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    with files.directory(inner, kernel=kernel) as at:
        assert os.path.samestat(os.fstat(at), inner.stat())


@both_ways
@pytest.mark.parametrize("link", ["a", "a/b"])
def test_a_symlink_anywhere_on_the_way_is_refused(tmp_path: Path, kernel: bool, link: str) -> None:
    """Neither the folder itself nor one above it may be a symlink; the message names the culprit."""
    real = tmp_path / "real" / "b"
    real.mkdir(parents=True)
    if link == "a":
        (tmp_path / "a").symlink_to(tmp_path / "real")
    else:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "b").symlink_to(real)
    with (
        pytest.raises(Misconfigured, match=f"{tmp_path}/{link} is a symbolic link"),
        files.directory(tmp_path / "a" / "b", kernel=kernel),
    ):
        pass


@both_ways
def test_what_is_no_folder_is_refused(tmp_path: Path, kernel: bool) -> None:
    """A missing folder is told apart from a file in its place."""
    (tmp_path / "file").touch()
    with pytest.raises(NotFound), files.directory(tmp_path / "none", kernel=kernel):
        pass
    with pytest.raises(Misconfigured), files.directory(tmp_path / "file", kernel=kernel):
        pass


@pytest.mark.parametrize("path", ["relative/x", "/", "/a/../b"])
def test_only_plain_absolute_paths_are_taken(path: str) -> None:
    """A relative path, no name at all and a ``..`` are refused."""
    with pytest.raises(Misconfigured):
        files.split(Path(path))


def test_reading_takes_regular_files_only(tmp_path: Path) -> None:
    """A symlink, a folder, a pipe and a device are refused, and a pipe without writer does not block."""
    (tmp_path / "target").write_text("x")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with files.directory(tmp_path) as at:
        for name in ("link", "folder", "pipe"):
            with pytest.raises(Misconfigured):
                files.read(at, name)
        assert files.read(at, "none") is None
        found = files.read(at, "target")
        assert found is not None
        assert found.content == b"x"
        assert "content" not in repr(found)


def test_reading_is_bounded(tmp_path: Path) -> None:
    """A file above the limit is refused instead of read."""
    (tmp_path / "big").write_bytes(b"x" * 11)
    with files.directory(tmp_path) as at, pytest.raises(TooLarge):
        files.read(at, "big", limit=10)


def test_a_file_appears_whole_with_its_mode(tmp_path: Path) -> None:
    """The mode does not depend on the umask, and no temporary file stays."""
    before = os.umask(0o077)
    try:
        with files.directory(tmp_path) as at:
            files.write(at, "file", b"content", OWN)
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert names(tmp_path) == ["file"]


def test_writing_replaces_a_symlink_and_not_its_target(tmp_path: Path) -> None:
    """What a symlink in place of the file points to stays as it was."""
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "file").symlink_to("target")
    with files.directory(tmp_path) as at:
        files.write(at, "file", b"content", OWN)
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "file").is_symlink()


def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """When the file cannot be put in place, the old one stays and nothing else remains."""
    (tmp_path / "file").mkdir()
    with files.directory(tmp_path) as at, pytest.raises(OSError, match="directory"):
        files.write(at, "file", b"content", OWN)
    assert names(tmp_path) == ["file"]


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    """Temporary files of this name go, everything else stays."""
    for name in (".file.secrethub-0011", ".other.secrethub-0011", "file", ".file.swp"):
        (tmp_path / name).touch()
    with files.directory(tmp_path) as at:
        files.sweep(at, "file")
    assert names(tmp_path) == [".file.swp", ".other.secrethub-0011", "file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_only_what_is_ours_is_swept(tmp_path: Path) -> None:
    """A folder, a link or a stranger's file under such a name stays; what was given to the owner goes."""
    (tmp_path / ".file.secrethub-x").mkdir()
    (tmp_path / ".file.secrethub-y").symlink_to("file")
    for name, uid in (("stranger", 12_346), ("owner", 12_345)):
        (tmp_path / f".file.secrethub-{name}").touch()
        os.chown(tmp_path / f".file.secrethub-{name}", uid, uid)
    with files.directory(tmp_path) as at:
        files.sweep(at, "file", 12_345)
    assert names(tmp_path) == [".file.secrethub-stranger", ".file.secrethub-x", ".file.secrethub-y"]
