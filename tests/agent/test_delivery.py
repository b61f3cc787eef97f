"""From a secret in Core to a file on the host, with a real agent process."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from agent_process import AgentProcess
from core_peer import CorePeer

from secrethub.wire import messages as wire

PATH = "secrets/prod/db"
PASSWORD = '{{ secret("prod/db").password }}'


def template(destination: Path, content: str = PASSWORD, extra: str = "") -> str:
    """Return the settings of one file."""
    return f"[[template]]\ncontent = '''{content}'''\ndestination = \"{destination}\"\n{extra}\n"


def counting(counter: Path) -> str:
    """Return a reload that writes one line each time."""
    return f"reload = {{ command = {json.dumps(['sh', '-c', f'echo told >> {counter}'])} }}"


def times(counter: Path) -> int:
    """Return how often the reload ran."""
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def status_of(core: CorePeer) -> wire.TemplateStatus | None:
    """Return what the agent last reported of its first file."""
    reports = [message for message in core.messages if isinstance(message, wire.Status)]
    return reports[-1].templates[0] if reports and reports[-1].templates else None


@pytest.fixture
def file(place: Path) -> Path:
    """Where the secret goes."""
    return place / "app.env"


async def test_a_secret_becomes_a_file(core: CorePeer, agent: AgentProcess, file: Path) -> None:
    """An agent enrols, connects, reads, writes the file with its mode, and confirms the version."""
    await core.write(PATH, password="canary-1")
    agent.configure(template(file))
    await agent.start()
    await agent.until(file.exists)
    assert file.read_text() == "canary-1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    await agent.until(lambda: wire.Confirm(path=PATH, version=1) in core.messages)
    assert await agent.stop() == 0


async def test_a_change_becomes_a_new_file_and_one_reload(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """A push replaces the file and tells the program; a push without a new value does neither."""
    counter = agent.place / "told"
    await core.write(PATH, password="canary-1")
    agent.configure(template(file, extra=counting(counter)))
    await agent.start()
    await agent.until(lambda: times(counter) == 1)
    await core.write(PATH, password="canary-2")
    await agent.until(lambda: times(counter) == 2)
    assert file.read_text() == "canary-2"
    await agent.until(lambda: wire.Confirm(path=PATH, version=2) in core.messages)
    inode = file.stat().st_ino
    await core.write(PATH, password="canary-2")
    await agent.until(lambda: wire.Confirm(path=PATH, version=3) in core.messages)
    assert (file.stat().st_ino, times(counter)) == (inode, 2)


async def test_a_restart_without_a_change_tells_nobody(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """A restarted agent finds the file as it should be and leaves it and the program alone."""
    counter = agent.place / "told"
    await core.write(PATH, password="canary-1")
    agent.configure(template(file, extra=counting(counter)))
    await agent.start()
    await agent.until(lambda: wire.Confirm(path=PATH, version=1) in core.messages)
    await agent.stop()
    core.messages.clear()
    await agent.start()
    await agent.until(lambda: wire.Confirm(path=PATH, version=1) in core.messages)
    assert times(counter) == 1


async def test_killed_between_file_and_reload_it_tells_later(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """An agent killed after the file was replaced tells the program after its restart."""
    counter, gate = agent.place / "told", agent.place / "gate"
    os.mkfifo(gate)
    await core.write(PATH, password="canary-1")
    waiting = json.dumps(["sh", "-c", f"echo began >> {counter}; read line < {gate}; echo told >> {counter}"])
    agent.configure(template(file, extra=f"reload = {{ command = {waiting} }}"))
    await agent.start()
    await agent.until(lambda: times(counter) == 1)
    assert file.read_text() == "canary-1"
    await agent.kill()
    await _open_gate(gate)
    agent.configure(template(file, extra=counting(counter)))
    before = times(counter)
    await agent.start()
    await agent.until(lambda: times(counter) == before + 1)
    await agent.until(lambda: not list(agent.state.glob("reload-*")))


async def _open_gate(gate: Path) -> None:
    """Let whoever waits at the gate go on, so that no process is left behind."""
    await asyncio.to_thread(gate.write_text, "go\n")


async def test_a_missing_field_keeps_the_last_good_file(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """When a field goes away the old file stays, Core and log hear why, and no value is in either."""
    counter = agent.place / "told"
    await core.write(PATH, password="canary-1")
    agent.configure(template(file, extra=counting(counter)))
    await agent.start()
    await agent.until(lambda: times(counter) == 1)
    await core.write(PATH, other="canary-2")
    await agent.until(lambda: getattr(status_of(core), "error", None) is not None)
    status = status_of(core)
    assert status is not None
    assert (status.rendered, status.destination) == (True, str(file))
    assert "password" in str(status.error)
    assert "canary" not in str(status.error)
    assert (file.read_text(), times(counter)) == ("canary-1", 1)
    await core.write(PATH, password="canary-3")
    await agent.until(lambda: file.read_text() == "canary-3")
    await agent.until(lambda: status_of(core) == wire.TemplateStatus(destination=str(file), rendered=True))


@pytest.mark.parametrize("code", ["not_found", "permission_denied"])
async def test_a_secret_that_may_not_be_read_makes_no_file(
    core: CorePeer, agent: AgentProcess, file: Path, code: str
) -> None:
    """No file appears, the error is reported, and the file comes when the secret may be read."""
    core.refusals[PATH] = code
    agent.configure(template(file))
    await agent.start()
    await agent.until(lambda: agent.logged("no file written yet"))
    assert not file.exists()
    del core.refusals[PATH]
    await core.write(PATH, password="canary-1")
    await core.push(wire.PolicyChanged())
    await agent.until(file.exists)


async def test_computed_paths_are_fetched_and_watched(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """A path that comes out of another secret is read too, and its changes count."""
    await core.write("secrets/which", name="blue")
    await core.write("secrets/blue", value="canary-b")
    agent.configure(template(file, '{{ secret(secret("which").name).value }}'))
    await agent.start()
    await agent.until(file.exists)
    await core.write("secrets/blue", value="canary-c")
    await agent.until(lambda: file.read_text() == "canary-c")


async def test_one_failing_file_does_not_hold_up_another(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """Each file is its own task: an unsafe folder concerns only the file in it."""
    unsafe = agent.place / "unsafe"
    unsafe.mkdir()
    unsafe.chmod(0o777)
    await core.write(PATH, password="canary-1")
    agent.configure(template(unsafe / "file") + template(file))
    await agent.start()
    await agent.until(file.exists)
    await agent.until(lambda: agent.logged("no file written yet"))
    assert list(unsafe.iterdir()) == []


async def test_files_of_one_program_make_one_reload(core: CorePeer, agent: AgentProcess, file: Path) -> None:
    """Several files that change together tell their program once."""
    counter = agent.place / "told"
    await core.write(PATH, password="canary-1")
    others = [agent.place / f"other-{n}" for n in range(4)]
    agent.configure("".join(template(path, extra=counting(counter)) for path in [file, *others]))
    await agent.start()
    await agent.until(lambda: wire.Confirm(path=PATH, version=1) in core.messages)
    await agent.until(lambda: all(path.exists() for path in others))
    await agent.until(lambda: not list(agent.state.glob("reload-*")))
    first = times(counter)
    await core.write(PATH, password="canary-2")
    await agent.until(lambda: all(path.read_text() == "canary-2" for path in [file, *others]))
    await agent.until(lambda: not list(agent.state.glob("reload-*")))
    assert times(counter) == first + 1


async def test_a_failed_reload_is_reported_and_the_version_not_confirmed(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """A program that could not be told does not use the version; the next change tries again."""
    flag = agent.place / "works"
    command = json.dumps(["sh", "-c", f"echo $SECRETHUB_CANARY canary-printed; test -e {flag}"])
    await core.write(PATH, password="canary-1")
    agent.configure(template(file, extra=f"reload = {{ command = {command} }}"))
    await agent.start()
    await agent.until(lambda: "ended with 1" in str(getattr(status_of(core), "error", "")))
    assert file.read_text() == "canary-1"
    assert not [message for message in core.messages if isinstance(message, wire.Confirm)]
    flag.touch()
    await core.write(PATH, password="canary-2")
    await agent.until(lambda: wire.Confirm(path=PATH, version=2) in core.messages)


async def test_a_failed_reload_is_tried_again_and_said(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """Without another change the program is told in the end; the log says what failed, and its end."""
    flag = agent.place / "works"
    command = json.dumps(["sh", "-c", f"test -e {flag}"])
    await core.write(PATH, password="canary-1")
    agent.configure(template(file, extra=f"reload = {{ command = {command} }}"))
    await agent.start()
    await agent.until(lambda: agent.logged("file written, reload failed"))
    assert not agent.logged("the last good file stays")
    await agent.until(lambda: "file written, reload failed" in str(getattr(status_of(core), "error", "")))
    flag.touch()
    await agent.until(lambda: wire.Confirm(path=PATH, version=1) in core.messages)
    await agent.until(lambda: agent.logged("in order again"))
    await agent.until(lambda: not list(agent.state.glob("reload-*")))


async def test_a_reload_under_way_holds_up_no_secret(core: CorePeer, agent: AgentProcess, file: Path) -> None:
    """While the program is being told, newer content is written; it is told once more, for all of it."""
    began, gate = agent.place / "began", agent.place / "gate"
    os.mkfifo(gate)
    await core.write(PATH, password="canary-1")
    waiting = json.dumps(["sh", "-c", f"echo began >> {began}; read line < {gate}"])
    agent.configure(template(file, extra=f"reload = {{ command = {waiting} }}"))
    await agent.start()
    await agent.until(lambda: times(began) == 1)
    for number in (2, 3):
        await core.write(PATH, password=f"canary-{number}")
        await agent.until(lambda: file.read_text() == f"canary-{number}")  # noqa: B023 - awaited here
    assert times(began) == 1
    assert not [message for message in core.messages if isinstance(message, wire.Confirm)]
    await _open_gate(gate)
    await agent.until(lambda: times(began) == 2)
    await _open_gate(gate)
    # The file was seen before the agent asked to tell of it: that may have come just after the second began.
    confirmed = wire.Confirm(path=PATH, version=3)
    await agent.until(lambda: times(began) == 3 or confirmed in core.messages)
    if times(began) == 3:
        await _open_gate(gate)
    await agent.until(lambda: confirmed in core.messages)
    await agent.until(lambda: not list(agent.state.glob("reload-*")))
    assert times(began) <= 3


async def test_what_no_file_can_hold_concerns_one_file(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """A template that makes text without a form in UTF-8 fails by itself; others are delivered."""
    await core.write(PATH, password="canary-1")
    agent.configure(template(agent.place / "odd", r'{{ "\ud800" }}') + template(file))
    await agent.start()
    await agent.until(lambda: wire.Confirm(path=PATH, version=1) in core.messages)
    await agent.until(lambda: agent.logged("no file written yet"))
    assert not agent.ended


async def test_killed_again_and_again_the_file_is_always_whole(
    core: CorePeer, agent: AgentProcess, file: Path
) -> None:
    """Whenever the agent is killed, what lies at the destination is one of the values, complete."""
    values = [str(n) * 60_000 for n in range(8)]
    await core.write(PATH, password=values[0])
    agent.configure(template(file))
    seen = set()
    for number, value in enumerate(values[1:], start=1):
        await agent.start()
        await agent.until(lambda: any(PATH in peer.watched for peer in core.sessions))
        await core.write(PATH, password=value)
        await asyncio.sleep(0.02 * number)  # another moment each time, from before the read to after it
        await agent.kill()
        if file.exists():
            seen.add(file.read_text())
    assert seen <= set(values)
    await agent.start()
    await agent.until(lambda: file.exists() and file.read_text() == values[-1])
    await agent.until(lambda: sorted(p.name for p in agent.place.iterdir() if "secrethub" in p.name) == [])


async def test_no_log_and_no_state_holds_a_value(core: CorePeer, agent: AgentProcess, file: Path) -> None:
    """After delivery, errors and renewal of everything, the canary is in the file and nowhere else."""
    await core.write(PATH, password="canary-1", number="canary-x")
    broken = template(agent.place / "broken", '{{ secret("prod/db")[secret("prod/db").password] }}')
    agent.configure(template(file) + broken + '[log]\nlevel = "debug"\n')
    await agent.start()
    await agent.until(file.exists)
    await agent.until(lambda: agent.logged("no file written yet"))
    await core.write(PATH, password="canary-2")
    await agent.until(lambda: file.read_text() == "canary-2")
    await agent.stop()
    kept = [path for path in agent.place.rglob("*") if path.is_file() and path not in {file, agent.config}]
    assert kept
    assert not [path for path in kept if b"canary" in path.read_bytes()]
