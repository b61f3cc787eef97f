"""A secret's fields as a template sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Fields:
    """Fields by attribute or by key, with ``keys``, ``values``, ``items`` and ``get`` to call.

    A field with the name of a method hides the method; a method that is not called is a field that is
    not there. As a whole it has no text.
    """

    __slots__ = ("_fields", "_path")

    def __init__(self, path: str, fields: Mapping[str, Any]) -> None:
        self._path = path
        self._fields = fields

    def __getitem__(self, name: object) -> Any:
        return _shown(self._path, self._fields[name])  # type: ignore[index]  # any other type is not found

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __repr__(self) -> str:
        return f"Fields({self._path!r})"

    def __str__(self) -> str:
        raise TypeError("a whole secret has no text")

    def method(self, name: str) -> Callable[..., Any] | None:
        """Return what a template may call by this name, or None."""
        path, fields = self._path, self._fields
        methods: dict[str, Callable[..., Any]] = {
            "keys": lambda: list(fields),
            "values": lambda: [_shown(path, value) for value in fields.values()],
            "items": lambda: [(key, _shown(path, value)) for key, value in fields.items()],
            "get": lambda key, default=None: _shown(path, fields[key]) if key in fields else default,
        }
        return methods.get(name)


def plain(value: object) -> object:
    """Return the fields as a dictionary, for JSON.

    Raises:
        TypeError: it is something else that JSON does not know.
    """
    if isinstance(value, Fields):
        return {key: value._fields[key] for key in value}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _shown(path: str, value: Any) -> Any:
    if isinstance(value, dict):
        return Fields(path, value)
    if isinstance(value, list):
        return [_shown(path, item) for item in value]
    return value
