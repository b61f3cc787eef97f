"""``python -m cluster.demo [--keep]``: run the demo, clean up, say whether it held."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import click

from cluster.demo.core import Core
from cluster.demo.folder import Folder, remove_dead
from cluster.demo.host import Host
from cluster.demo.processes import adopt_orphans, descendants, end_rest, open_files
from cluster.demo.steps import DemoFailed, Steps, tell
from cluster.demo.story import Story
from cluster.signals import ending
from secrethub.client import ClientError


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running and say how to reach and stop it.")
def main(keep: bool) -> None:
    """Show the main job end to end on a temporary cluster."""
    for number in ending():
        signal.signal(number, _interrupted)
    adopt_orphans()
    sys.exit(Demo(keep=keep).run())


class Demo:
    """One run: its folder, its processes, its end.

    Args:
        keep: leave everything running after a good end.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._steps = Steps()
        for dead in remove_dead():
            tell(f"removed {dead}, which a demo that was killed had left")
        self._place = Folder()
        self._folder = self._place.path
        self._core: Core | None = None
        self._host: Host | None = None

    def run(self) -> int:
        """Run the demo and return its exit code."""
        held = False
        try:
            story = self._tell()
            held = True
            if self._keep:
                self._describe(story)
        except (DemoFailed, ClientError) as exc:
            self._complain(exc)
        except KeyboardInterrupt:
            tell("\ninterrupted: stopping everything")
        finally:
            if not (held and self._keep):
                held = self._clean() and held
        tell("demo: ok" if held else "demo: failed")
        return 0 if held else 1

    def _tell(self) -> Story:
        host_folder = self._folder / "host"
        host_folder.mkdir(mode=0o700)
        lock = self._place.lock
        self._core = Core(self._folder, "--uninitialised", keep=self._keep, lock=lock)
        self._host = Host(host_folder, keep=self._keep, lock=lock)
        story = Story(self._folder, self._core, self._host, self._steps)
        story.tell()
        return story

    def _clean(self) -> bool:
        """Stop everything, remove everything, and look whether anything is left."""
        # What was started must end: nothing may interrupt this.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        outside = {*self._core.outside(), *open_files(descendants(os.getpid()))} if self._core else set()
        left: list[str] = []
        with self._steps.step("Stop everything and look what is left"):
            for stop in (self._host and self._host.stop, self._core and self._core.stop):
                try:
                    if stop:
                        stop()
                except DemoFailed as exc:
                    left.append(f"{exc.message}\n{exc.detail}")
            left += [f"process: {line}" for line in end_rest()]
            left += [f"file: {path}" for path in (*self._place.remove(), *outside) if path.exists()]
            self._steps.show("\n".join(f"LEFT BEHIND: {item}" for item in left) or "nothing")
        return not left

    def _complain(self, exc: DemoFailed | ClientError) -> None:
        tell(f"FAILED at: {self._steps.current}\n  {exc.message if isinstance(exc, DemoFailed) else exc}")
        detail = exc.detail if isinstance(exc, DemoFailed) else self._core.child.tail() if self._core else ""
        for line in detail.splitlines():
            tell(f"  | {line}")

    def _describe(self, story: Story) -> None:
        assert self._core is not None
        assert self._host is not None
        found = self._core.addresses()
        # Some of it goes by itself when the cluster ends.
        removal = "rm -rf " + " ".join(map(str, (self._folder, *self._core.outside())))
        pids = " ".join(str(pid) for pid in (*self._host.pids(), self._core.child.pid))
        self._steps.show(
            f"\nLeft running, as asked:\n"
            f"  export SECRETHUB_ADDR={found.api} SECRETHUB_TOKEN_FILE={story.token_file}\n"
            f"  HTTPS {found.api_tls} (root: {found.ca_file}), agents {found.agent_url}\n"
            f"  agent's socket {self._host.socket}, file {self._host.file}\n"
            f"  unseal keys {self._folder / 'unseal-keys.json'}\n"
            f"  to end it and remove everything:\n"
            f"    kill {pids}; while kill -0 {self._core.child.pid}; do sleep 1; done 2>/dev/null; {removal}"
        )


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.umask(0o077)
    main(prog_name="./dev demo")
