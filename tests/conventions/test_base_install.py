"""The base installation is the command line and the agent, without the server's libraries."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

import pytest
from packaging.utils import canonicalize_name

from tests.conventions.project import PRODUCT, ROOT, modules

_BLOCKER = """
import importlib.abc, sys
blocked = frozenset({blocked!r})
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError("not in the base installation: " + name, name=name)
sys.meta_path.insert(0, Blocker())
import importlib
for name in {wanted!r}:
    importlib.import_module(name)
"""


def beyond_base() -> list[str]:
    """Top-level modules of every installed distribution that the base installation does not bring."""
    text = (ROOT / "requirements" / "base.txt").read_text("utf-8")
    base = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}
    owners = importlib.metadata.packages_distributions()
    return sorted(
        module
        for module, distributions in owners.items()
        if module not in PRODUCT and not base & {canonicalize_name(name) for name in distributions}
    )


def names_below(folder: str) -> list[str]:
    """Dotted names of the modules below ``folder``."""
    found = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules(folder)]
    return [name.removesuffix(".__init__") for name in found if not name.endswith("__main__")]


@pytest.mark.parametrize("folder", ["cluster/cli", "agent", "secrethub/client", "secrethub/wire"])
def test_imports_nothing_beyond_the_base_installation(folder: str) -> None:
    """The command line, the agent and what they stand on import with the base dependencies alone."""
    script = _BLOCKER.format(blocked=beyond_base(), wanted=names_below(folder))
    result = _run(script)
    assert result.returncode == 0, result.stderr


def test_the_blocker_blocks() -> None:
    """The check above would notice: the server's own start does not import in a base installation."""
    script = _BLOCKER.format(blocked=beyond_base(), wanted=["cluster.start"])
    result = _run(script)
    assert "not in the base installation" in result.stderr


@pytest.mark.parametrize("command", ["cluster.cli.main", "agent.daemon"])
def test_help_needs_no_server(command: str) -> None:
    """Both commands show their help in a base installation."""
    script = _BLOCKER.format(blocked=beyond_base(), wanted=["runpy"])
    script += (
        f"sys.argv = ['command', '--help']\nsys.modules['runpy'].run_module({command!r}, {{}}, '__main__')\n"
    )
    result = _run(script)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout or "usage" in result.stdout


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
