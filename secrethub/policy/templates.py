"""Templates of native policies: what people write again and again, from a few checked parameters. Pure.

A value becomes data in the document, never a piece of its text, and the document is then read as strictly
as one that somebody wrote. So a value can say no more than its field can. Placeholders such as
``{{agent.id}}`` are the template's own; a value cannot bring any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from secrethub.errors import InvalidRequest
from secrethub.policy import strict
from secrethub.policy.document import parse_policy

_MOST_VALUES = 256
_LONGEST = 4096

Value = str | list[str]
Statements = list[dict[str, Any]]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """What a template asks for.

    Attributes:
        name: of the parameter.
        about: what it is, for people.
        many: whether it takes several values.
        default: taken when it is not given; None for one that must be.
    """

    name: str
    about: str
    many: bool = False
    default: Value | None = None


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template.

    Attributes:
        name: of the template.
        about: what its policies do, for people.
        parameters: what it asks for.
        build: makes the statements; a parameter without a value is empty.
    """

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    build: Callable[[Mapping[str, Any]], Statements]


_PATHS = Parameter(name="paths", about="Paths, such as secrets/prod/**", many=True)
_CAPABILITIES = Parameter(
    name="capabilities", about="What is allowed there", many=True, default=["read", "list"]
)
_NETWORKS = Parameter(name="networks", about="Networks of clients, such as 10.0.0.0/8", many=True)
_UNTIL = Parameter(name="until", about="The last day, such as 2030-12-31")


def _allow(given: Mapping[str, Any], **conditions: Any) -> Statements:
    kept = {name: value for name, value in conditions.items() if value}
    statement = {"effect": "allow", "paths": given["paths"], "capabilities": given["capabilities"]}
    return [{**statement, "conditions": kept} if kept else statement]


def _read_only(given: Mapping[str, Any]) -> Statements:
    return _allow({**given, "capabilities": ["read", "list"]})


def _business_hours(given: Mapping[str, Any]) -> Statements:
    window = {name: given[name] for name in ("from", "until", "zone")}
    return _allow(given, time=window, weekdays=given["weekdays"])


def _network_restricted(given: Mapping[str, Any]) -> Statements:
    return _allow(given, source_ip=given["networks"])


def _time_limited(given: Mapping[str, Any]) -> Statements:
    return _allow(given, dates={name: given[name] for name in ("from", "until") if given[name]})


def _emergency(given: Mapping[str, Any]) -> Statements:
    conditions = {"source_ip": given["networks"], "max_ttl": given["max_ttl"]}
    return _allow(given, dates={"until": given["until"]}, **conditions)


def _per_agent(given: Mapping[str, Any]) -> Statements:
    if given["by"] not in {"id", "name"}:
        raise InvalidRequest("by is id or name")
    prefix = given["prefix"]
    if "*" in prefix:
        raise InvalidRequest("prefix has no wildcards, or agents would reach the paths of others")
    return _allow({**given, "paths": [prefix + "/{{agent." + given["by"] + "}}/**"]})


_ALL = (
    Template(
        name="read-only",
        about="Read and list, nothing else.",
        parameters=(_PATHS,),
        build=_read_only,
    ),
    Template(
        name="business-hours",
        about="Only at certain hours of certain days.",
        parameters=(
            _PATHS,
            _CAPABILITIES,
            Parameter(name="from", about="Begin of the day's window", default="08:00"),
            Parameter(name="until", about="End of the window", default="18:00"),
            Parameter(name="zone", about="Time zone, such as Europe/Berlin", default="UTC"),
            Parameter(name="weekdays", about="Days", many=True, default=["mon", "tue", "wed", "thu", "fri"]),
        ),
        build=_business_hours,
    ),
    Template(
        name="network-restricted",
        about="Only from certain networks.",
        parameters=(_PATHS, _CAPABILITIES, _NETWORKS),
        build=_network_restricted,
    ),
    Template(
        name="time-limited",
        about="Only up to a certain day, that day included.",
        parameters=(
            _PATHS,
            _CAPABILITIES,
            _UNTIL,
            Parameter(name="from", about="The first day", default=""),
        ),
        build=_time_limited,
    ),
    Template(
        name="emergency",
        about="For people who must repair something: up to a day, with short-lived tokens only.",
        parameters=(
            _PATHS,
            Parameter(
                name="capabilities",
                about="What is allowed there",
                many=True,
                default=["create", "read", "update", "patch", "list"],
            ),
            _UNTIL,
            Parameter(name="max_ttl", about="The longest life of a token", default="1h"),
            msgspec.structs.replace(_NETWORKS, default=[]),
        ),
        build=_emergency,
    ),
    Template(
        name="per-agent",
        about="Each agent its own folder below a prefix, and nobody else's.",
        parameters=(
            Parameter(name="prefix", about="The folder above, such as secrets/agents"),
            Parameter(name="by", about="What the folders are called by: id or name", default="id"),
            _CAPABILITIES,
        ),
        build=_per_agent,
    ),
)

TEMPLATES: Mapping[str, Template] = {template.name: template for template in _ALL}


def render(template: Template, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document that a template makes of parameters.

    Args:
        template: one of :data:`TEMPLATES`.
        given: values by parameter: text, or a list of texts where there may be several.

    Raises:
        InvalidRequest: an unknown or missing parameter, or a value that its field does not take.
    """
    known = {parameter.name: parameter for parameter in template.parameters}
    for name in given:
        if name not in known:
            raise InvalidRequest(f"unknown parameter {strict.quote(name)}; known are {', '.join(known)}")
    values = {name: _checked(parameter, given.get(name)) for name, parameter in known.items()}
    document = {"version": "1", "statements": template.build(values)}
    parse_policy(template.name, document)
    return document


def _checked(parameter: Parameter, value: Any) -> Value:
    name = parameter.name
    if value is None:
        if parameter.default is None:
            raise InvalidRequest(f"the parameter {name} is missing: {parameter.about}")
        return parameter.default
    values = value if parameter.many and isinstance(value, list) else [value]
    if not 1 <= len(values) <= _MOST_VALUES:
        raise InvalidRequest(f"the parameter {name} has 1 to {_MOST_VALUES} values")
    for one in values:
        if not isinstance(one, str) or not 0 < len(one) <= _LONGEST:
            raise InvalidRequest(f"the parameter {name} takes {'texts' if parameter.many else 'one text'}")
        if "{{" in one or "}}" in one:
            raise InvalidRequest(f"the parameter {name} takes no placeholders")
    return list(values) if parameter.many else str(values[0])
