"""A second process that kills itself (SIGKILL) right after a step of a rotation, started by tests."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from secrethub.operations import rotation_runs
from secrethub.rotation.steps import Run
from tests.gateway import second_process


def die() -> NoReturn:
    """End here and now."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def arm(step: str) -> None:
    """Die when what a step does is done and nobody was told of it; at ``confirm`` before anything is."""
    outside, confirm, tell = rotation_runs._outside, rotation_runs._confirm, rotation_runs._tell

    async def act(rotator: Any, run: Run, *rest: Any) -> None:
        await outside(rotator, run, *rest)
        if run.step == step != "promote":
            die()

    async def wait(*args: Any) -> bool:
        if step == "confirm":
            die()
        return await confirm(*args)

    async def told(core: Any, rotation: Any, at: str, outcome: str, *rest: Any) -> None:
        if (at, outcome) == (step, "done"):
            die()  # the new version is committed, and its entry is not
        await tell(core, rotation, at, outcome, *rest)

    rotation_runs._outside, rotation_runs._confirm, rotation_runs._tell = act, wait, told


def run(ready: Connection, node_file: str, socket: str, step: str) -> None:
    """Be a second process that dies at a step."""
    arm(step)
    second_process.run(ready, node_file, socket)
