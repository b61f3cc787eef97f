"""Processes killed in the middle of rotations: each goes on, at another one, and its history is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gateway import rotation_crash
from tests.gateway.behind import entries, ledger_is_good, until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.kv import ok, put
from tests.gateway.pair import healthy
from tests.gateway.rotations import STEPS, configured, history
from tests.gateway.second_process import started

PATHS = [f"crash/{step}" for step in STEPS]


async def test_a_run_survives_its_process(node: Node, tmp_path: Path) -> None:
    """Whatever step a process dies in, the run ends once, and secret, past and ledger tell the same."""
    for path in PATHS:
        await put(node, path, {"value": "first", "other": "kept"})
        await configured(node, f"secrets/{path}", confirm_within=0)
    url = node.settings.database_url
    key = Path(node.settings.cluster_key_file).read_text()
    # From here on only processes that will be killed carry rotations on.
    await node.tree.workplace.take_back()
    for number, step in enumerate(STEPS):
        settings = node_settings(tmp_path, url, f"k{number}", key)
        async with started(settings, node.tree.handles, rotation_crash.run, step) as process:
            await until(lambda process=process: healthy(process))
            await ok(node, "POST", f"sys/rotation/run/secrets/{PATHS[number]}")
            await until(lambda process=process: _dead(process))
    settings = node_settings(tmp_path, url, "last", key)
    async with started(settings, node.tree.handles) as process:
        await until(lambda: healthy(process))
        for path in PATHS:
            runs = await until(lambda path=path: history(node, f"secrets/{path}"), 90)
            assert [(run["run"], run["outcome"], run["new_version"]) for run in runs] == [(1, "done", 2)]
            answer: Any = await ok(node, "GET", f"secret/data/{path}")
            assert answer["metadata"]["version"] == 2
            assert answer["data"]["other"] == "kept"
            assert len(answer["data"]["value"]) == 32
        ends = await until(lambda: _ends(url))
        assert len(ends) == len(PATHS)
    await ledger_is_good(node, state=True)


async def _dead(process: Any) -> bool:
    return not process.child.is_alive()


async def _ends(url: str) -> list[dict[str, Any]]:
    found = await entries(url, operation="rotation.end")
    return found if len(found) == len(PATHS) else []
