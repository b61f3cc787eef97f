"""Which local process may read what."""

from __future__ import annotations

import pytest

from agent.grants import Grants, Peer, named
from agent.settings import GrantSettings

APP = Peer(pid=7, uid=1000, gids=frozenset({1000, 44}), unit="app.service", executable="/usr/bin/app")


def may(peer: Peer, path: str, *entries: GrantSettings) -> bool:
    """Tell whether a process may read a path."""
    application = Grants(entries).application(peer)
    return application is not None and application.may_read(path)


def grant(*paths: str, uid: int | None = None, **conditions: object) -> GrantSettings:
    """Return an entry."""
    return GrantSettings(paths=paths or ("secrets/app/*",), uid=uid, **conditions)  # type: ignore[arg-type]


def test_credentials_are_granted_by_themselves() -> None:
    """To read a path is not to have something made there, nor the other way round."""
    entries = [
        GrantSettings(uid=1000, paths=("secrets/**",)),
        GrantSettings(uid=1000, credentials=("database/creds/app",)),
    ]
    application = Grants(entries).application(APP)
    assert application is not None
    assert application.may_have_made("database/creds/app")
    assert not application.may_read("database/creds/app")
    assert not application.may_have_made("database/creds/app2")
    assert not application.may_have_made("secrets/app/a")


def test_nothing_is_allowed_without_an_entry() -> None:
    """No entry, no access, whoever asks: root has none either."""
    assert not may(APP, "secrets/app/a")
    assert not may(Peer(pid=1, uid=0, gids=frozenset({0})), "secrets/app/a", grant(uid=1000))


@pytest.mark.parametrize("conditions", [{"uid": 1000}, {"gid": 44}, {"unit": "app.service"}])
def test_user_group_and_unit_grant(conditions: dict[str, object]) -> None:
    """Each of user, group and unit is enough by itself."""
    assert may(APP, "secrets/app/a", grant(**conditions))  # type: ignore[arg-type]


@pytest.mark.parametrize("conditions", [{"uid": 1001}, {"gid": 45}, {"unit": "other.service"}])
def test_another_identity_is_not_granted(conditions: dict[str, object]) -> None:
    """A process with another user, group or unit gets nothing."""
    assert not may(APP, "secrets/app/a", grant(**conditions))  # type: ignore[arg-type]


def test_all_conditions_of_an_entry_must_hold() -> None:
    """An entry with user and unit is for processes that have both."""
    assert may(APP, "secrets/app/a", grant(uid=1000, unit="app.service"))
    assert not may(APP, "secrets/app/a", grant(uid=1000, unit="other.service"))


def test_an_executable_narrows_and_never_grants() -> None:
    """With the right program an entry still needs its user; with the wrong or an unknown one it fails."""
    assert may(APP, "secrets/app/a", grant(uid=1000, executable="/usr/bin/app"))
    assert not may(APP, "secrets/app/a", grant(uid=1000, executable="/usr/bin/other"))
    assert not may(APP, "secrets/app/a", grant(executable="/usr/bin/app"))
    unreadable = Peer(pid=7, uid=1000, gids=frozenset({1000}))
    assert not may(unreadable, "secrets/app/a", grant(uid=1000, executable="/usr/bin/app"))


def test_what_could_not_be_read_matches_nothing() -> None:
    """A process whose unit is unknown does not match an entry that names no unit and nothing else."""
    unknown = Peer(pid=7, uid=1000, gids=frozenset({1000}))
    assert not may(unknown, "secrets/app/a", grant())


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("secrets/app/*", "secrets/app/a", True),
        ("secrets/app/*", "secrets/app/a/b", False),
        ("secrets/app/*", "secrets/app", False),
        ("secrets/app/**", "secrets/app/a/b", True),
        ("secrets/app/**", "secrets/app", True),
        ("secrets/app/**", "secrets/application", False),
        ("secrets/app/db-*", "secrets/app/db-1", True),
        ("secrets/app/db-*", "secrets/app/web-1", False),
        ("secrets/*/db", "secrets/prod/db", True),
        ("secrets/app/a.b", "secrets/app/aXb", False),
    ],
)
def test_patterns_match_as_in_policies(pattern: str, path: str, expected: bool) -> None:
    """``*`` stays within a segment, ``**`` covers any number, everything else is literal."""
    assert may(APP, path, grant(pattern, uid=1000)) is expected


def test_entries_add_up_to_one_application() -> None:
    """What several entries grant is united, and the application's name does not depend on their order."""
    first, second = grant("secrets/a", uid=1000), grant("secrets/b", gid=44)
    there, back = Grants([first, second]).application(APP), Grants([second, first]).application(APP)
    assert there is not None
    assert back is not None
    assert there.may_read("secrets/a")
    assert there.may_read("secrets/b")
    assert there.name == back.name
    alone = Grants([first]).application(APP)
    assert alone is not None
    assert alone.name != there.name


def test_an_entry_names_the_application() -> None:
    """The name holds for all that the process reads, and is the same whichever condition led to it."""
    entries = [grant("secrets/a", uid=1000, application="web"), grant("secrets/b", gid=44)]
    found = Grants(entries).application(APP)
    assert found is not None
    assert found.may_read("secrets/a")
    assert found.may_read("secrets/b")
    assert named(found.name) == "web"
    other = Grants([grant(unit="app.service", application="web")]).application(APP)
    assert other is not None
    assert other.name == found.name


def test_a_process_of_two_applications_is_nobody() -> None:
    """Where entries of two names apply nothing is guessed: it reads nothing, not even what both grant."""
    entries = [grant(uid=1000, application="web"), grant(gid=44, application="ops")]
    assert Grants(entries).application(APP) is None
    assert not may(APP, "secrets/app/a", *entries)


def test_conditions_make_no_name() -> None:
    """An entry without a name is no application to Core, whatever its conditions say."""
    for conditions in ({"uid": 1000}, {"unit": "app.service"}, {"gid": 44, "executable": "/usr/bin/app"}):
        found = Grants([grant(**conditions)]).application(APP)  # type: ignore[arg-type]
        assert found is not None
        assert named(found.name) is None
