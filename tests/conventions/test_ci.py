"""What ``.ci/run`` makes of what happens: only tests that failed get a second try."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conventions.project import ROOT

# Stands for ./dev: each run of the tests ends as the next line of `codes` says.
_DEV = """\
#!/bin/sh
[ "$1" = test ] || exit 0
echo "$*" >>runs
code=$(sed -n "$(wc -l <runs)p" codes)
cache=.pytest_cache/v/cache
if [ "$code" = 1 ]; then mkdir -p $cache && echo '{"a": true}' >$cache/lastfailed; fi
echo "==== run $(wc -l <runs) with $code in 1.0s ===="
exit "$code"
"""


@pytest.mark.parametrize(
    ("codes", "runs", "code"),
    [
        ((0,), 1, 0),
        ((1, 0), 2, 0),
        ((1, 1), 2, 1),
        ((1, 5), 2, 1),
        ((124,), 1, 1),
        ((2,), 1, 1),
        ((137,), 1, 1),
    ],
)
def test_only_failed_tests_are_run_again(
    tmp_path: Path, codes: tuple[int, ...], runs: int, code: int
) -> None:
    """Exit code 1 of pytest is tried once more, a timeout or a crash is not; both closing lines are shown."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "dev").write_text(_DEV)
    (tmp_path / "dev").chmod(0o755)
    (tmp_path / "codes").write_text("".join(f"{number}\n" for number in codes))
    stale = tmp_path / ".pytest_cache" / "v" / "cache"
    stale.mkdir(parents=True)
    (stale / "lastfailed").write_text('{"of last week": true}')
    done = subprocess.run(
        [str(tmp_path / ".ci" / "run")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    assert len((tmp_path / "runs").read_text().splitlines()) == runs
    lines = done.stdout.splitlines()
    assert lines[-1] == f"==== run {runs} with {codes[-1]} in 1.0s ===="
    assert any(line.endswith(f"==== run 1 with {codes[0]} in 1.0s ====") for line in lines)
