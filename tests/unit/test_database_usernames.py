"""Names of users that are made at databases."""

from __future__ import annotations

import pytest

from secrethub.engines.database.usernames import check_template, cluster_tag, marker_of, username
from secrethub.errors import InvalidRequest

TAG = cluster_tag("6f1c3b0e-0000-4000-8000-000000000000")
MARKER = "AbCdEfGhIjKlMnOpQrStUvWx"


def named(template: str, role: str = "app", display_name: str = "approle-web") -> str:
    return username(
        template,
        role=role,
        display_name=display_name,
        tag=TAG,
        marker=MARKER,
        longest=63,
        unix_time=1_800_000_000,
        random="r".__mul__,
    )


@pytest.mark.parametrize(
    ("template", "begins"),
    [
        ("", "v-approle--app"),
        ("{{.RoleName}}", "app"),
        ("{{ .RoleName | uppercase }}_{{random 4}}", "APP_rrrr"),
        ("{{(.DisplayName) | truncate 3 | uppercase}}", "APP"),
        ("{{unix_time}}", "1800000000"),
        ("x" * 100, "x" * 25),
        ("a;b\"c'd e", "a-b-c-d-e"),
    ],
)
def test_templates(template: str, begins: str) -> None:
    """A name begins as the template says, has no odd character, fits, and ends with cluster and intent."""
    check_template(template)
    name = named(template)
    assert name == f"{begins}-{TAG}-{MARKER}"
    assert len(name) <= 63
    assert marker_of(name, TAG) == MARKER


@pytest.mark.parametrize(
    "template",
    [
        "{{.Secret}}",
        "{{",
        "a}}",
        "{{random}}",
        "{{random 999}}",
        "{{.RoleName | shell}}",
        "a\nb",
        "x" * 300,
        "{{}}",
    ],
)
def test_what_is_no_template(template: str) -> None:
    """What is not in the small language is refused, not taken as text."""
    with pytest.raises(InvalidRequest):
        check_template(template)


@pytest.mark.parametrize("name", ["a-b", f"x-{'0' * 12}-{MARKER}", f"x-{TAG}-{MARKER}-y", f"{TAG}-{MARKER}"])
def test_users_of_others_are_not_ours(name: str) -> None:
    """Only a name with this cluster's tag and a marker at its end is one that this cluster made."""
    assert marker_of(name, TAG) is None


def test_a_hostile_role_does_not_change_the_end() -> None:
    """A name that contains another's ending keeps its own."""
    name = named("{{.RoleName}}", role=f"-{TAG}-{MARKER[::-1]}")
    assert marker_of(name, TAG) == MARKER
