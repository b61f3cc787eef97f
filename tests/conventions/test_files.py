"""What lies in the project besides code: locks, addresses, paths."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conventions.project import PRODUCT, ROOT, modules, shown, texts

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
# Written in pieces, or this file would find itself.
_REGISTRIES = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "crates" + ".io",
    "golang" + ".org/",
)
# A person's home folder, except that of /home/a, who is in the tests.
_HOME = re.compile(r"(?<![\w*])/(?:home|Users)/(?!a\b)\w+")
_SHARED = {"/usr/src", "/usr/local", "/var/lib", "/var/tmp"}


def test_no_registry_address_anywhere() -> None:
    """No file names the address of a package registry: where packages come from is each machine's affair."""
    pattern = re.compile("|".join(re.escape(name) for name in _REGISTRIES))
    assert not [shown(path) for path, text in texts() if pattern.search(text)]


def test_no_path_of_the_machine_it_was_written_on() -> None:
    """No file holds a path of this checkout, of a folder above it, or of a home folder."""
    # A single name, like /app, is too common a word in paths of secrets and URLs.
    places = {str(folder) for folder in (ROOT, *ROOT.parents, Path.home()) if len(folder.parts) > 2} - _SHARED
    pattern = re.compile(
        "|".join([_HOME.pattern, *(rf"(?<![\w.*]){re.escape(place)}\b" for place in sorted(places))])
    )
    found = [f"{shown(path)}: {match[0]}" for path, text in texts() for match in pattern.finditer(text)]
    assert not found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locked_requirements_are_exact_and_hashed(lock: Path) -> None:
    """Every locked requirement has an exact version and at least one hash, and no option names an index."""
    text = lock.read_text("utf-8").replace("\\\n", " ")
    entries = [
        line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    assert entries
    assert not [entry for entry in entries if entry.startswith("-")]
    assert not [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry]


def test_the_lock_covers_what_the_project_needs() -> None:
    """Every dependency of the project and of its development is in the development lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [text for extra in project["optional-dependencies"].values() for text in extra]
    wanted += project["dependencies"]
    wanted += _tools()
    locked = _versions(ROOT / "requirements" / "dev.txt")
    missing = [
        text
        for text in wanted
        if (name := canonicalize_name(Requirement(text).name)) not in locked
        or locked[name] not in Requirement(text).specifier
    ]
    assert not missing


@pytest.mark.parametrize(
    ("folders", "with_tools"), [(PRODUCT, False), (("tests", "bench"), True)], ids=["product", "tests"]
)
def test_what_is_imported_is_declared(folders: tuple[str, ...], with_tools: bool) -> None:
    """No module relies on a package that is only there because another one needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {Requirement(text).name for text in project["dependencies"]}
    declared |= {
        Requirement(text).name for extra in project["optional-dependencies"].values() for text in extra
    }
    if with_tools:
        declared |= {Requirement(text).name for text in _tools()}
    owners = importlib.metadata.packages_distributions()
    names = {canonicalize_name(name) for name in declared}
    undeclared = {
        f"{shown(path)}: {top}"
        for path in modules(*folders)
        for top in _imported(path)
        if top in owners
        and top not in {*PRODUCT, "tests", "bench"}
        and not names & {canonicalize_name(name) for name in owners[top]}
    }
    assert not undeclared


def test_the_locks_agree() -> None:
    """What is installed to run has the versions that were tested."""
    tested = _versions(ROOT / "requirements" / "dev.txt")
    for name in ("base.txt", "server.txt"):
        locked = _versions(ROOT / "requirements" / name)
        assert {package: tested.get(package) for package in locked} == locked


def _tools() -> list[str]:
    lines = (ROOT / "requirements" / "dev.in").read_text("utf-8").splitlines()
    return [text for line in lines if (text := line.split("#", 1)[0].strip())]


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _versions(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", lock.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}
