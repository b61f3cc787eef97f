"""Which secrets the agent watches: what is settled, whose paths come first, and how many one may want."""

from __future__ import annotations

import pytest

from agent.urls import usual_gateways
from agent.watches import FILES, SHARE, Watches, batches
from secrethub.wire.messages import Refusal, Watching


def granted(*paths: str) -> Watching:
    """Return Core's consent."""
    return Watching(id=1, paths=paths)


def refused(code: str, *paths: str) -> Watching:
    """Return Core's refusal."""
    return Watching(id=1, paths=(), refused=tuple(Refusal(path=path, code=code) for path in paths))


@pytest.fixture
def watches() -> Watches:
    """Three wanted paths."""
    watches = Watches()
    for path in ("secrets/a", "secrets/b", "secrets/c"):
        assert watches.want(path, "app")
    return watches


def test_only_lasting_answers_are_settled(watches: Watches) -> None:
    """Consent and a lasting refusal are settled; a passing refusal and silence are asked about again."""
    assert watches.settle(granted("secrets/a")) == (["secrets/a"], [])
    watches.settle(refused("permission_denied", "secrets/b"))
    watches.settle(refused("sealed", "secrets/c"))
    assert watches.unsettled() == ["secrets/c"]
    assert [watches.is_granted(f"secrets/{name}") for name in "abc"] == [True, False, False]
    watches.unsettle()
    assert len(watches.unsettled()) == 3
    assert not watches.is_granted("secrets/a")


def test_files_come_first(watches: Watches) -> None:
    """The paths of files are asked for before those of applications, also one that both want."""
    watches.want("secrets/file", FILES)
    watches.want("secrets/c", FILES)
    watches.want("secrets/file", "app")
    assert watches.unsettled()[:2] == ["secrets/file", "secrets/c"]


def test_an_application_has_its_share() -> None:
    """Beyond its share an application is not watched for; others are, and room that it gives up counts."""
    watches = Watches()
    assert all(watches.want(f"secrets/{number}", "greedy") for number in range(SHARE))
    assert not watches.want("secrets/more", "greedy")
    assert watches.want("secrets/1", "greedy")
    assert watches.want("secrets/more", "other")
    assert all(watches.want(f"secrets/file/{number}", FILES) for number in range(SHARE + 1))
    watches.drop(["secrets/1"])
    assert watches.want("secrets/another", "greedy")


def test_core_is_told_only_of_watches_that_it_granted(watches: Watches) -> None:
    """What is dropped is wanted no more; an answer that comes late says what to give back."""
    watches.settle(granted("secrets/a", "secrets/b"))
    assert watches.drop(["secrets/a", "secrets/c", "secrets/never"]) == ["secrets/a"]
    assert watches.settle(granted("secrets/c")) == ([], ["secrets/c"])
    assert watches.drop_all_but(set()) == ["secrets/b"]
    assert len(watches) == 0


def test_remembered_refusals_are_bounded() -> None:
    """However many paths are refused, only so many are kept in mind."""
    watches = Watches()
    for number in range(10_000):
        watches.settle(refused("permission_denied", f"secrets/{number}"))
    assert len(watches._refused) <= 4_096


def test_paths_go_in_batches_that_fit_into_a_frame() -> None:
    """Every path is in one batch, in order."""
    paths = [f"secrets/{number}" for number in range(120)]
    assert [path for some in batches(paths) for path in some] == paths
    assert max(map(len, batches(paths))) <= 50


def test_gateways_are_usually_on_core_s_hosts() -> None:
    """The hosts of Core's URLs with the agents' port, each once."""
    urls = ("https://a.example.com:4443", "https://a.example.com", "https://[::1]:4443")
    assert usual_gateways(urls) == ("wss://a.example.com:4665", "wss://[::1]:4665")
