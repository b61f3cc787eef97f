"""Key services of clouds: which kinds there are, and how a node gets at the keys in its settings.

One module a kind, imported when its first key is used; each imports its cloud's library. The credentials
are those that the node's settings name, or, only where they say ``ambient``, the node's own identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from secrethub.errors import Misconfigured

if TYPE_CHECKING:
    from secrethub.node import KeyServiceSettings
    from secrethub.seal.key_services import KeyService

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "awskms": "cluster.kms.aws",
        "gcpckms": "cluster.kms.gcp",
        "azurekeyvault": "cluster.kms.azure",
    }
)
"""Kind → the module with its ``open_service``."""

OPENER = "cluster.kms:Services"
"""How a node's processes find this; written into the node file."""


class Services:
    """The keys in a node's settings, as :class:`secrethub.seal.key_services.KeyServices`."""

    def __init__(self, settings: tuple[KeyServiceSettings, ...]) -> None:
        """Prepare; nothing is imported and nobody is asked.

        Args:
            settings: of each key.
        """
        self._settings = {one.name: one for one in settings}

    def __repr__(self) -> str:
        return f"Services({sorted(self._settings)})"

    def kinds(self) -> dict[str, str]:
        """Return name → kind."""
        return {name: one.kind for name, one in self._settings.items()}

    def get(self, name: str, kind: str) -> KeyService:
        """Return a key, opened with the credentials that are in the files now: somebody may have mended them.

        Raises:
            Misconfigured: there is none of this name and kind, or it cannot be used.
        """
        settings = self._settings.get(name)
        if settings is None or settings.kind != kind:
            raise Misconfigured(f"key_services: this node's settings have no {kind} key called {name!r}")
        try:
            module = import_module(MODULES[kind])
        except ImportError as exc:
            raise Misconfigured(f"key_services.{name}: {exc.name} is not installed") from exc
        opened: KeyService = module.open_service(settings)
        return opened
