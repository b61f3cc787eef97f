"""The encrypted copy of the cache: what survives a restart, and what a thief of the disk has."""

from __future__ import annotations

import asyncio
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cache import Entry, Key
from agent.clocks import Instant
from agent.disk_cache import DiskCache, in_memory, open_disk_cache

NOW = Instant(wall=1_000_000.0, boot=500.0)
KEY = Key("uid=1000", "secrets/prod/db")
MEMORY = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not in_memory(MEMORY), reason="needs a tmpfs at /dev/shm")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A private folder on a tmpfs."""
    path = Path(tempfile.mkdtemp(prefix="secrethub-test-", dir=MEMORY))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory on a disk."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def entry(data: bytes = b'{"password":"canary-77"}', version: int = 1) -> Entry:
    """Return an entry that was read at :data:`NOW`."""
    return Entry(
        data=data,
        version=version,
        created_time="2026-01-01T00:00:00Z",
        fresh_until=NOW.after(300),
        stale_until=NOW.after(86_400),
    )


def opened(state: Path, runtime: Path) -> DiskCache:
    """Open the disk cache as a new process would."""
    disk = open_disk_cache(state, [runtime])
    assert disk is not None
    return disk


async def write(disk: DiskCache, *changes: tuple[Key, Entry | None]) -> None:
    """Note changes and have them written, as a run that is cancelled does."""
    for key, value in changes:
        disk.note(key, value)
    task = asyncio.create_task(disk.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_a_restart_keeps_what_was_cached(state: Path, runtime: Path) -> None:
    """The next process reads what the last one wrote, with its deadlines."""
    await write(opened(state, runtime), (KEY, entry()), (Key("a", "secrets/b", 2), entry(version=2)))
    found = dict(opened(state, runtime).load(NOW))
    assert found == {KEY: entry(), Key("a", "secrets/b", 2): entry(version=2)}


async def test_the_newest_state_is_written(state: Path, runtime: Path) -> None:
    """Several changes of one entry leave the last one; a removed entry leaves nothing."""
    disk = opened(state, runtime)
    await write(disk, (KEY, entry()), (KEY, entry(version=2)))
    assert opened(state, runtime).load(NOW) == [(KEY, entry(version=2))]
    await write(disk, (KEY, None))
    assert list((state / "cache").iterdir()) == []


async def test_a_stolen_disk_tells_nothing(state: Path, runtime: Path) -> None:
    """Neither names nor contents of the files show a path, a field or a value."""
    await write(opened(state, runtime), (KEY, entry()))
    for file in state.rglob("*"):
        seen = file.name.encode() + (file.read_bytes() if file.is_file() else b"")
        for told in (b"canary", b"password", b"prod", b"1000"):
            assert told not in seen


async def test_everything_is_private(state: Path, runtime: Path) -> None:
    """Folders are 0700, files 0600, on both file systems."""
    await write(opened(state, runtime), (KEY, entry()))
    for path in [*state.rglob("*"), *runtime.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


async def test_without_its_key_nothing_opens(state: Path, runtime: Path) -> None:
    """After a reboot the tmpfs is empty: entries do not open and are removed."""
    await write(opened(state, runtime), (KEY, entry()))
    for file in runtime.rglob("*.key"):
        file.unlink()
    assert opened(state, runtime).load(NOW) == []
    assert list((state / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "later", [Instant(NOW.wall + 90_000, NOW.boot), Instant(NOW.wall, NOW.boot + 90_000)]
)
async def test_deadlines_are_inside_and_hold_on_both_clocks(
    state: Path, runtime: Path, later: Instant
) -> None:
    """An entry that has ended on either clock is not used any more, whatever its file's dates say."""
    await write(opened(state, runtime), (KEY, entry()))
    assert opened(state, runtime).load(later) == []


async def test_entries_cannot_be_exchanged_or_edited(state: Path, runtime: Path) -> None:
    """A sealed entry opens under its own name only, and not with a bit changed."""
    disk = opened(state, runtime)
    await write(disk, (KEY, entry()), (Key("b", "secrets/b"), entry(b'{"b":1}')))
    first, second = sorted((state / "cache").iterdir())
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert opened(state, runtime).load(NOW) == []


async def test_destroying_leaves_neither_entries_nor_key(state: Path, runtime: Path) -> None:
    """After the agent was revoked nothing of the cache can be opened again."""
    disk = opened(state, runtime)
    await write(disk, (KEY, entry()))
    disk.destroy()
    assert list((state / "cache").iterdir()) == []
    assert list(runtime.rglob("*.key")) == []


def test_without_a_tmpfs_there_is_no_disk_cache(state: Path, tmp_path: Path) -> None:
    """A key on the same kind of disk as the entries would protect nothing."""
    if in_memory(tmp_path):
        pytest.skip("the temporary folder is a tmpfs here")
    assert open_disk_cache(state, [tmp_path, tmp_path / "none"]) is None


def test_a_strangers_folder_is_not_trusted_with_the_key(
    state: Path, runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A runtime folder that others may enter is not used, and the log says that there is no copy."""
    (runtime / "secrethub-agent").mkdir()
    (runtime / "secrethub-agent").chmod(0o755)
    assert open_disk_cache(state, [runtime]) is None
    (record,) = caplog.records
    assert ("on disk" in record.message, record.__dict__["tried"]) == (True, [str(runtime)])
