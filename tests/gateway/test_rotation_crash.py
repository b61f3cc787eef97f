"""Processes killed in the middle of rotations: each goes on, at another one, and its history is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.kv import ok, put
from tests.gateway.pair import healthy
from tests.gateway.rotations import STEPS, configured, history
from tests.gateway.second_process import started
from tests.gateway.standstill import standing_still

_STEP = "{row}.body->'run'->>'step'"
_MOMENTS = {
    # What a step does is done, and that it is is not stored.
    **{
        step: (
            "UPDATE ON rotations",
            f"{_STEP.format(row='OLD')} = '{step}' AND {_STEP.format(row='NEW')} IS DISTINCT FROM '{step}'",
        )
        for step in STEPS
    },
    # The new version is committed, and its entry is not.
    "told": ("INSERT ON audit_entries", "NEW.operation = 'rotation.promote' AND NEW.outcome = 'done'"),
}


async def test_a_run_survives_its_process(node: Node, tmp_path: Path) -> None:
    """Whatever step a process dies in, the run ends once, and secret, past and ledger tell the same."""
    paths = [f"crash/{moment}" for moment in _MOMENTS]
    for path in paths:
        await put(node, path, {"value": "first", "other": "kept"})
        await configured(node, f"secrets/{path}", confirm_within=0)
    url = node.settings.database_url
    key = Path(node.settings.cluster_key_file).read_text()
    # From here on only processes that will be killed carry rotations on.
    await node.tree.workplace.take_back()
    for number, (path, moment) in enumerate(zip(paths, _MOMENTS.values(), strict=True)):
        settings = node_settings(tmp_path, url, f"k{number}", key)
        async with started(settings, node.tree.handles) as process, standing_still(url, *moment) as reached:
            await until(lambda process=process: healthy(process))
            await ok(node, "POST", f"sys/rotation/run/secrets/{path}")
            await reached()
            process.kill()
        # What it held ends by itself; nobody has to wait for it here.
        await sql(url, "UPDATE locks SET expires_at = clock_timestamp()")
    await node.tree.workplace.lend(node.process.core)
    for path in paths:
        runs = await until(lambda path=path: history(node, f"secrets/{path}"))
        assert [(run["run"], run["outcome"], run["new_version"]) for run in runs] == [(1, "done", 2)]
        answer: Any = await ok(node, "GET", f"secret/data/{path}")
        assert answer["metadata"]["version"] == 2
        assert answer["data"]["other"] == "kept"
        assert len(answer["data"]["value"]) == 32

    async def told() -> bool:
        found = await entries(url, operation="rotation.end", outcome="begun")
        return {entry["path"] for entry in found} == {f"sys/rotation/config/secret/{path}" for path in paths}

    await until(told)
    await ledger_is_good(node, state=True)
