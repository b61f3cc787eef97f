"""What the documents say of endpoints is declared, and every page is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secrethub.engines.engine import Method
from secrethub.engines.flat import DYNAMIC, flat_view
from secrethub.engines.kinds import engines
from secrethub.engines.patterns import compile_pattern
from tests.conventions.project import ROOT, shown
from tests.gateway.declared import METHODS

GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DECISIONS = ROOT / "docs" / "adr"
_WIDTH = 120
_BLOCK = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
_VERB = f"(?:{'|'.join(METHODS)})"
_ENDPOINT = re.compile(rf"((?:`{_VERB}`\s)*`(?:{_VERB}\s)?)(?:/v1/)?([a-z][^\s`?]*)")
_PATH = re.compile(r"(?<!\w)/v1/([^\s`?\"'),;]+)")
# Where kinds are mounted from the start. Guides call what else they offer by its path below the mount.
_MOUNTS = {
    "sys/": "system",
    "agents/": "agents",
    "pki/": "pki",
    "secret/": "kv",
    "auth/token/": "token",
    "auth/approle/": "approle",
    "auth/userpass/": "userpass",
    "auth/cert/": "cert",
    f"{DYNAMIC}postgresql/": "database",
    f"{DYNAMIC}redis/": "database",
    f"{DYNAMIC}aws/": "aws",
}
_BELOW = ("kv", "database", "aws", "pki")
_OPERATIONS = {kind: engine.operations() for kind, engine in engines().items()}


@pytest.mark.parametrize("guide", GUIDES, ids=shown)
def test_endpoints_are_declared(guide: Path) -> None:
    """Every method and path leads to a declared operation, and every path below /v1/ to one of any method."""
    text = guide.read_text("utf-8")
    wrong = [
        f"{verb} {path}"
        for verbs, path in _ENDPOINT.findall(text)
        for verb in re.findall(r"[A-Z]+", verbs)
        if not _leads(METHODS[verb], path)
    ]
    wrong += [
        path for path in _PATH.findall(text) if not any(_leads(method, path) for method in METHODS.values())
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("read", "sys/health", True),
        ("read", "sys/healthy", False),
        ("delete", "sys/health", False),
        ("read", "secrets/prod/db", True),
        ("write", "rotate-root/<name>", True),
        ("write", "rotate-roots/<name>", False),
    ],
)
def test_a_mistyped_endpoint_is_found(method: Method, path: str, found: bool) -> None:
    """The check above tells what nobody answers."""
    assert _leads(method, path) is found


@pytest.mark.parametrize("page", [*GUIDES, *sorted(DECISIONS.glob("*.md"))], ids=shown)
def test_prose_is_wrapped(page: Path) -> None:
    """No line of prose has more than 120 characters; tables and blocks may."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    assert not [line for line in text.splitlines() if len(line) > _WIDTH and not line.startswith("|")]


def test_every_page_is_listed() -> None:
    """Each decision is in the table of decisions, each guide in the table of guides and in the README."""
    table = (DECISIONS / "README.md").read_text("utf-8")
    assert not [path.name for path in DECISIONS.glob("0*.md") if f"({path.name})" not in table]
    guides = {path.name for path in GUIDES} - {"README.md"}
    for index, prefix in ((ROOT / "docs" / "README.md", ""), (ROOT / "README.md", "docs/")):
        text = index.read_text("utf-8")
        assert not [name for name in guides if f"({prefix}{name})" not in text], shown(index)


def _leads(method: Method, path: str) -> bool:
    """Return whether a declared operation answers, at a mount or, for a path below one, of any kind."""
    path = flat_view(method, path.rstrip("/."))
    mounts = [mount for mount in _MOUNTS if path.startswith(mount)]
    places = [(_MOUNTS[mount], path.removeprefix(mount)) for mount in mounts]
    places = places or [(kind, path) for kind in _BELOW]
    return any(
        operation.method == method and compile_pattern(operation.pattern).fullmatch(rest)
        for kind, rest in places
        for operation in _OPERATIONS[kind]
    )
