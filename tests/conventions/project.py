"""The project's files, as they lie on disk: nothing here needs version control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("secrethub", "actors", "serve", "agent", "cluster")
_SKIPPED = {"build", "dist", "node_modules", "__pycache__"}


def modules(*folders: str) -> list[Path]:
    """Every Python file below ``folders``."""
    return [path for folder in folders for path in _files(ROOT / folder) if path.suffix == ".py"]


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the project with its content."""
    for path in _files(ROOT):
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def shown(path: Path) -> str:
    """A path as it is told to people."""
    return str(path.relative_to(ROOT))


def _files(folder: Path) -> Iterator[Path]:
    if not folder.exists():
        return
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") and path.name not in {".ci", ".gitignore", ".github"}
        if hidden or path.name in _SKIPPED or path.name.endswith(".egg-info"):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path
