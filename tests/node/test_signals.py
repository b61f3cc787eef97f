"""What asks a process to end, and going on when nobody listens any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("disposition", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)], ids=["terminal", "nohup"]
)
def test_a_closed_terminal_is_the_end_unless_nohup_was_asked_for(
    disposition: signal.Handlers, ends: bool
) -> None:
    """SIGHUP is handled like SIGTERM, but not where it is ignored from the start."""
    code = "import signal; from cluster.signals import ending; print(signal.SIGHUP in ending())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, disposition),
    )
    assert done.stdout.strip() == str(ends)


def test_the_demo_cleans_up_without_an_audience() -> None:
    """What it tells is lost when its terminal is gone; it goes on."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from cluster.demo.steps import tell; tell('a'); tell('b'); sys.stderr.write('end')"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "end")
