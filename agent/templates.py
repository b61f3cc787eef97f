"""Templates: Jinja2 in its sandbox, with the functions ``secret`` and ``credentials``.

``secret("prod/db").password`` is a field of a secret, ``credentials("database/creds/app").username`` one of
what is made for this host.

Rendering is pure: it takes the secrets it may use and says which one it lacks
(:class:`NeedsSecret`), so nothing is fetched from inside a template. What is undefined is an error,
a null is an error, and so is printing a whole secret by accident. Booleans are written as JSON
writes them. Size of the output and time are bounded.

Error messages hold paths, line numbers and names that stand in the template itself, nothing else:
an exception's own text could quote a value, so it is not used.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent.fields import Fields, plain
from secrethub.errors import InvalidPath, SecretHubError
from secrethub.wire.canonical_path import check_path

PREFIX = "secrets/"
MADE = "credentials:"
"""How what ``credentials(…)`` means begins, where paths of secrets stand beside it."""
LARGEST = 1024 * 1024
"""Characters a rendered file may have."""
LONGEST = 5.0
"""Seconds that rendering may take."""
_FILENAMES = frozenset({"<template>", "<unknown>"})
_GREATEST_POWER = 64


class TemplateError(SecretHubError):
    """A template cannot be rendered. The message holds no value."""

    code = "template_error"


class NeedsSecret(Exception):
    """Rendering wants a secret that it was not given.

    Attributes:
        path: ``secrets/…``, or :data:`MADE` and a path.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _TooLong(Exception):
    """Rendering is above its limits."""


class _Undefined(jinja2.StrictUndefined):
    """An error on every use; its message is the missing name and nothing else."""

    @property
    def _undefined_message(self) -> str:
        return str(self._undefined_name)


class _Method(_Undefined):
    """A field that is not there, under a name that a template may call: an error on every use but that."""

    __slots__ = ("_method",)
    unsafe_callable = alters_data = False
    jinja_pass_arg = None  # what Jinja asks of everything it calls

    def __init__(self, name: str, method: Callable[..., Any]) -> None:
        super().__init__(name=name)
        self._method = method

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._method(*arguments, **named)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with fields before methods and products within bounds."""

    intercepted_binops = frozenset({"*", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Fields):
            if attribute in obj:
                return obj[attribute]
            method = obj.method(attribute)
            return self.undefined(name=attribute) if method is None else _Method(attribute, method)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (isinstance(right, (int, float)) and abs(right) <= _GREATEST_POWER):
            raise _TooLong
        for text, count in ((left, right), (right, left)):
            if isinstance(count, int) and hasattr(text, "__len__") and len(text) * count > LARGEST:
                raise _TooLong
        return super().call_binop(context, operator, left, right)


def environment() -> jinja2.Environment:
    """Return the environment that all templates share. It loads nothing from anywhere."""
    made = _Environment(
        undefined=_Undefined, autoescape=False, keep_trailing_newline=True, finalize=_finalize, cache_size=0
    )
    made.globals = {name: made.globals[name] for name in ("range", "dict", "namespace")}
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": plain}
    return made


class Template:
    """A compiled template.

    Args:
        source: its text.
        shared: from :func:`environment`.
        longest: seconds that rendering may take.

    Attributes:
        paths: secrets and credentials that the text names literally; a path that is computed is not among
            them.
        unknown: names that it takes from its surroundings, which have none of them.

    Raises:
        TemplateError: the text is no template.
    """

    def __init__(self, source: str, shared: jinja2.Environment, longest: float = LONGEST) -> None:
        self._source = source
        self._longest = longest
        try:
            self._compiled = shared.from_string(source)
            tree = shared.parse(source)
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"line {exc.lineno}: {exc.message}") from exc
        except (jinja2.TemplateError, SecretHubError) as exc:
            raise TemplateError(f"not a usable template: {type(exc).__name__}") from exc
        self.paths = frozenset(_literal_paths(tree))
        self.unknown = frozenset(meta.find_undeclared_variables(tree).difference(shared.globals, _FUNCTIONS))

    def render(self, secrets: Mapping[str, Mapping[str, Any] | SecretHubError]) -> bytes:
        """Render the text, in UTF-8. Runs for up to ``longest`` seconds: call it in a thread.

        Args:
            secrets: fields by path, or why a path cannot be read.

        Raises:
            NeedsSecret: a path that is not in ``secrets``.
            SecretHubError: the error given for a path that is used.
            TemplateError: anything else; the message holds no value.
        """

        def given(wanted: str) -> Fields:
            found = secrets.get(wanted)
            if found is None:
                raise NeedsSecret(wanted)
            if isinstance(found, SecretHubError):
                raise found
            return Fields(wanted, found)

        failure: NeedsSecret | SecretHubError
        try:
            with _Deadline(time.monotonic() + self._longest):
                return self._collect(
                    secret=lambda path: given(full_path(path)),
                    credentials=lambda path: given(made_at(path)),
                ).encode("utf-8")
        except NeedsSecret as exc:
            failure = NeedsSecret(exc.path)
        except TemplateError as exc:
            failure = TemplateError(f"{_where(exc)}{exc.message}")
        except SecretHubError as exc:
            failure = exc.with_traceback(None)
        except UnicodeEncodeError:
            failure = TemplateError("the result holds half a surrogate pair, which no file can")
        except _TooLong:
            failure = TemplateError(
                f"the result is above {LARGEST} characters, or takes more than {self._longest:g} seconds"
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, its text may quote a value
            failure = TemplateError(_where(exc) + self._explained(exc))
        # Raised here, so that the exception that may quote a value is not even its context.
        raise failure

    def _collect(self, **functions: Callable[[object], Fields]) -> str:
        pieces, length = [], 0
        for piece in self._compiled.generate(**functions):
            length += len(piece)
            if length > LARGEST:
                raise _TooLong
            pieces.append(piece)
        return "".join(pieces)

    def _explained(self, exc: Exception) -> str:
        if isinstance(exc, SecurityError):
            return "that is not allowed in a template"
        if isinstance(exc, jinja2.UndefinedError):
            # The name may have been computed from a value: it is shown if the template spells it.
            name = exc.message or ""
            return f"{name!r} is not there" if name in self._source else "a name is not there"
        return type(exc).__name__


def full_path(path: object) -> str:
    """Return the path that ``secret(…)`` means: ``prod/db`` and ``secrets/prod/db`` are the same.

    Raises:
        TemplateError: it is no path.
    """
    if not isinstance(path, str):
        raise TemplateError("secret() takes a path")
    try:
        return check_path(path if path.startswith(PREFIX) else PREFIX + path)
    except InvalidPath as exc:
        raise TemplateError(f"secret(): {exc}") from exc


def made_at(path: object) -> str:
    """Return what ``credentials(…)`` means: :data:`MADE` and the whole path where they are made.

    Raises:
        TemplateError: it is no path.
    """
    if not isinstance(path, str):
        raise TemplateError("credentials() takes a path")
    try:
        return MADE + check_path(path)
    except InvalidPath as exc:
        raise TemplateError(f"credentials(): {exc}") from exc


class _Deadline:
    """Ends what runs in this thread when its time is over: templates have no other brake."""

    def __init__(self, ends_at: float) -> None:
        self._ends_at = ends_at

    def __enter__(self) -> None:
        sys.settrace(self._look)

    def __exit__(self, *_exc: object) -> None:
        sys.settrace(None)

    def _look(self, _frame: FrameType, _event: str, _arg: object) -> Any:
        if time.monotonic() > self._ends_at:
            raise _TooLong
        return self._look


def _finalize(value: Any) -> Any:
    if value is None:
        raise TemplateError("a null value is printed")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Fields, Mapping, list, tuple)):
        raise TemplateError("a whole secret or list is printed; name a field, or use tojson")
    if callable(value) and not isinstance(value, jinja2.Undefined):
        raise TemplateError("a function is printed")
    return value


_FUNCTIONS: dict[str, Callable[[object], str]] = {"secret": full_path, "credentials": made_at}


def _literal_paths(tree: nodes.Template) -> list[str]:
    paths = []
    for call in tree.find_all(nodes.Call):
        meaning = _FUNCTIONS.get(call.node.name) if isinstance(call.node, nodes.Name) else None
        if meaning is not None and call.args and isinstance(call.args[0], nodes.Const):
            paths.append(meaning(call.args[0].value))
    return paths


def _where(exc: Exception) -> str:
    """Return the line of the template that an exception came from, for the front of a message."""
    traceback, line = exc.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename in _FILENAMES:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"line {line}: " if line else ""
