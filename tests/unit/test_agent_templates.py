"""Templates of the agent: what they can say, what they cannot do, and what an error tells."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from agent.templates import NeedsSecret, Template, TemplateError, environment
from secrethub.errors import NotFound, SecretHubError

CANARY = "canary-5f1e"
SHARED = environment()
SECRETS: dict[str, Any] = {
    "secrets/prod/db": {
        "password": CANARY,
        "port": 5432,
        "tls": True,
        "nothing": None,
        "items": "a field called items",
        "hosts": ["a", "b"],
        "nested": {"user": "app"},
    },
    "secrets/gone": NotFound("no such secret"),
}


def render(source: str) -> str:
    """Render with :data:`SECRETS`."""
    return Template(source, SHARED).render(SECRETS).decode("utf-8")


def failure(source: str) -> TemplateError:
    """Return the error of a template."""
    with pytest.raises(TemplateError) as caught:
        render(source)
    return caught.value


def test_credentials_are_no_secrets() -> None:
    """The same path means something else to each of the two functions; both name what they need."""
    source = '{{ credentials("secrets/prod/db").username }} {{ secret("prod/db").port }}'
    template = Template(source, SHARED)
    assert template.paths == {"credentials:secrets/prod/db", "secrets/prod/db"}
    with pytest.raises(NeedsSecret) as needed:
        template.render(SECRETS)
    assert needed.value.path == "credentials:secrets/prod/db"
    held = {**SECRETS, "credentials:secrets/prod/db": {"username": "made"}}
    assert template.render(held) == b"made 5432"
    assert str(failure('{{ credentials("../x").username }}')).startswith("credentials(): segment 1")
    assert "takes a path" in str(failure("{{ credentials(1).username }}"))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('{{ secret("prod/db").password }}\n', f"{CANARY}\n"),
        ('{{ secret("secrets/prod/db").password }}', CANARY),
        ('{{ secret("prod/db")["password"] }}', CANARY),
        ('{{ secret("prod/db").port }}', "5432"),
        ('{{ secret("prod/db").tls }}', "true"),
        ('{{ secret("prod/db").items }}', "a field called items"),
        ('{{ secret("prod/db").nested.user }}', "app"),
        ('{{ secret("prod/db").hosts | join(",") }}', "a,b"),
        ('{% for key, it in secret("prod/db").nested.items() %}{{ key }}={{ it }}{% endfor %}', "user=app"),
        ('{% for key in secret("prod/db").nested %}{{ key }},{% endfor %}', "user,"),
        ('{{ secret("prod/db").nested | tojson }}', '{"user": "app"}'),
        ('{{ secret("prod/db").absent | default("x") }}', "x"),
        ('{{ secret("prod/db").get("absent", "x") }}', "x"),
        ('{{ secret("prod/db").keys | default("no field") }}', "no field"),
        (
            '{{ secret("prod/db").nested.keys() | join }}{{ secret("prod/db").nested.values() | join }}',
            "userapp",
        ),
        ('{% if "absent" in secret("prod/db") %}a{% else %}b{% endif %}', "b"),
        ('{% set db = secret("prod/db") %}{{ db.port }}{{ db.tls }}', "5432true"),
        ('{% if false %}{{ secret("gone").x }}{% endif %}ok', "ok"),
    ],
)
def test_what_a_template_can_say(source: str, text: str) -> None:
    """Fields by attribute and key, nested values, loops, JSON, defaults."""
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ('\n{{ secret("prod/db").pasword }}', "line 2: 'pasword' is not there"),
        ("{{ unknown }}", "'unknown' is not there"),
        ('{{ secret("prod/db").nothing }}', "null"),
        ('{{ secret("prod/db") }}', "whole secret"),
        ('{{ secret("prod/db").hosts }}', "whole secret or list"),
        ('{{ "x" ~ secret("prod/db") }}', "TypeError"),
        ("{{ secret(3) }}", "secret() takes a path"),
        ('{{ secret("a/../b").c }}', ".."),
        ('{{ secret("prod/db").password', "line 1"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ('{{ "\\ud800" }}', "surrogate"),
        ('{{ secret("prod/db").keys }}', "'keys' is not there"),
        ('{{ secret("prod/db").get ~ "x" }}', "'get' is not there"),
        ('{% if secret("prod/db").values %}x{% endif %}', "'values' is not there"),
        ("{{ range }}", "a function is printed"),
    ],
)
def test_mistakes_are_explained(source: str, told: str) -> None:
    """A mistake in a template is an error that says where and what."""
    assert told in failure(source).message


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ secret.__globals__ }}",
        "{{ secret.__closure__[0].cell_contents }}",
        '{{ secret("prod/db").__class__ }}',
        '{{ secret("prod/db")._fields }}',
        '{{ secret("prod/db") | attr("_fields") }}',
        '{{ secret("prod/db").keys.__globals__ }}',
        "{{ self._TemplateReference__context }}",
        "{{ lipsum.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ joiner.__init__ }}",
        "{{ ''.join.__self__.__class__ }}",
        '{{ "{0.__class__.__init__.__globals__}".format(secret) }}',
        "{{ '%s' | format(secret) | attr('__class__') }}",
        "{{ range.__class__ }}",
        "{{ dict.__base__.__subclasses__() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.getcwd() }}",
        "{% extends '/etc/passwd' %}",
        "{{ [].append(1) }}",
        "{% set x = {} %}{{ x.update({1: 2}) }}",
        "{{ ''|map(attribute='__class__')|list }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    """No template reaches Python's innards, another file, or changes what it is given."""
    failure(source)


@pytest.mark.parametrize(
    "source",
    [
        '{{ secret("prod/db")[secret("prod/db").password] }}',
        '{{ secret("prod/db").password.absent }}',
        '{{ secret(secret("prod/db").password ~ "/../x").y }}',
        '{{ "%d" | format(secret("prod/db").password) }}',
        '{{ secret("prod/db").password / 2 }}',
        '{{ {}[secret("prod/db").password] }}',
        '{{ secret("prod/db").password | attr(secret("prod/db").password) }}',
        '{{ range(secret("prod/db").password) }}',
    ],
)
def test_an_error_never_quotes_a_value(source: str) -> None:
    """Neither the message nor the traceback nor a hidden context holds the secret."""
    error = failure(source)
    assert CANARY not in "".join(traceback.format_exception(error, chain=True))
    assert CANARY not in repr(error)
    assert error.__context__ is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 100000000 }}",
        "{{ [1] * 100000000 }}",
        "{{ 10 ** 100000 }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% for i in range(100000000) %}{% endfor %}",
    ],
)
def test_output_is_bounded(source: str) -> None:
    """A template cannot fill memory or disk."""
    failure(source)


def test_time_is_bounded() -> None:
    """Loops within loops are ended when their time is over."""
    source = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match=r"takes more than 0\.1 seconds"):
        Template(source, SHARED, longest=0.1).render(SECRETS)


def test_a_template_asks_for_what_it_lacks() -> None:
    """A path that is not given is asked for, also when it is computed."""
    source = '{% for name in ["b", "c"] %}{{ secret("apps/" ~ name).x }}{% endfor %}'
    with pytest.raises(NeedsSecret) as caught:
        render(source)
    assert caught.value.path == "secrets/apps/b"


def test_literal_paths_are_known_beforehand() -> None:
    """What the text names literally can be fetched at once."""
    source = '{{ secret("a/b").c }}{% if x %}{{ secret("secrets/d").e }}{% endif %}{{ secret("f" ~ g).h }}'
    assert Template(source, SHARED).paths == {"secrets/a/b", "secrets/d"}


def test_the_error_of_a_path_comes_out_when_it_is_used() -> None:
    """A secret that could not be read fails the template that uses it, with its own error."""
    with pytest.raises(NotFound):
        render('{{ secret("gone").x }}')


def test_errors_are_ours() -> None:
    """Whatever a template does, the error belongs to the tree of SecretHub's errors."""
    assert isinstance(failure("{{ unknown }}"), SecretHubError)
