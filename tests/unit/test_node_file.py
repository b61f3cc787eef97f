"""The node file: written for the owner alone, read strictly."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from secrethub.errors import Misconfigured
from secrethub.node import (
    VARIABLE,
    Listener,
    NodeSettings,
    read_cluster_key,
    read_node_file,
    write_node_file,
)

KEY = bytes(range(32))


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    return NodeSettings(
        node="node-a",
        run_dir=str(tmp_path / "run"),
        state_dir=str(tmp_path / "state"),
        database_url="postgresql://core:canary-password@/secrethub",
        cluster_key_file=str(tmp_path / "cluster.key"),
        http=Listener("127.0.0.1", 4000),
        tls=Listener("0.0.0.0", 4443),
        agents=None,
        serve=None,
        metrics=None,
        agent_urls=("wss://localhost:4665",),
    )


def write_key(settings: NodeSettings, content: str, mode: int = 0o600) -> None:
    path = Path(settings.cluster_key_file)
    path.write_text(content)
    path.chmod(mode)


def test_what_was_written_is_read(settings: NodeSettings, tmp_path: Path) -> None:
    """Settings come back whole, and nobody else may read the file, whatever the umask is."""
    path = tmp_path / "node.json"
    before = os.umask(0)
    try:
        write_node_file(path, settings)
    finally:
        os.umask(before)
    assert read_node_file(str(path)) == settings
    assert path.stat().st_mode & 0o777 == 0o600


def test_writing_again_replaces(settings: NodeSettings, tmp_path: Path) -> None:
    """A shorter file leaves nothing of the longer one before it."""
    path = tmp_path / "node.json"
    path.write_text("x" * 10_000)
    write_node_file(path, settings)
    assert read_node_file(str(path)) == settings


def test_the_environment_names_the_file(
    settings: NodeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an argument the file is the one of the environment variable."""
    path = tmp_path / "node.json"
    write_node_file(path, settings)
    monkeypatch.setenv(VARIABLE, str(path))
    assert read_node_file() == settings


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_variable_the_process_was_not_ours(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unset or empty variable is named in the error."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(Misconfigured, match=VARIABLE):
        read_node_file()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is a misconfiguration that names it."""
    with pytest.raises(Misconfigured, match="absent"):
        read_node_file(str(tmp_path / "absent"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_a_node_file_open_to_others_is_refused(mode: int, settings: NodeSettings, tmp_path: Path) -> None:
    """Any access for group or others, who could read the database's password or write what is imported."""
    path = tmp_path / "node.json"
    write_node_file(path, settings)
    path.chmod(mode)
    with pytest.raises(Misconfigured, match="0600") as caught:
        read_node_file(str(path))
    assert "canary-password" not in str(caught.value)


@pytest.mark.parametrize("change", [{"unknown": 1}, {"node": 5}, {"http": {"host": "h"}}, {"dev": "yes"}])
def test_unknown_and_mistyped_settings_are_refused(
    change: dict[str, object], settings: NodeSettings, tmp_path: Path
) -> None:
    """A key that is not known, lacks a part or has another type is refused."""
    path = tmp_path / "node.json"
    write_node_file(path, settings)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Misconfigured, match=r"node\.json"):
        read_node_file(str(path))


def test_a_truncated_file_is_refused(settings: NodeSettings, tmp_path: Path) -> None:
    """Half a file is a misconfiguration, and the error does not show what was in it."""
    path = tmp_path / "node.json"
    write_node_file(path, settings)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(Misconfigured) as caught:
        read_node_file(str(path))
    assert "canary-password" not in str(caught.value)


def test_settings_hide_the_database_url(settings: NodeSettings) -> None:
    """The text form names the node and nothing else."""
    assert repr(settings) == str(settings) == "NodeSettings(node='node-a')"


@pytest.mark.parametrize("content", [KEY.hex(), KEY.hex().upper(), f"{KEY.hex()}\n"])
def test_the_cluster_key_is_read(content: str, settings: NodeSettings) -> None:
    """64 hexadecimal digits, with or without a final newline, are the 32 bytes."""
    write_key(settings, content)
    assert read_cluster_key(settings) == KEY


@pytest.mark.parametrize("content", ["", "canary", KEY.hex()[:-2], KEY.hex() + "00", "é" * 64])
def test_what_is_no_cluster_key_is_refused(content: str, settings: NodeSettings) -> None:
    """Other contents are a misconfiguration that names the file, not its content."""
    write_key(settings, content)
    with pytest.raises(Misconfigured, match=r"cluster\.key") as caught:
        read_cluster_key(settings)
    assert not content or content not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o610])
def test_a_cluster_key_open_to_others_is_refused(mode: int, settings: NodeSettings) -> None:
    """Any access for group or others makes the key unusable."""
    write_key(settings, KEY.hex(), mode)
    with pytest.raises(Misconfigured, match="0600"):
        read_cluster_key(settings)


def test_a_missing_cluster_key_is_named(settings: NodeSettings) -> None:
    """A key file that is not there is a misconfiguration that names it."""
    with pytest.raises(Misconfigured, match=r"cluster\.key"):
        read_cluster_key(settings)
