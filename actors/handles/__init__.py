"""How actors are called: the one part of ``actors``, beside sessions, that serving processes import.

A :class:`Handle` calls one actor, :class:`Handles` finds it by its name. :class:`RayHandles` reaches
actors in other processes, :class:`LocalHandles` the same classes in this process. Ray is imported
when the first actor is looked up, the actors' classes never.

:class:`SealClient` and :func:`fetch_keyring` speak with SealState and the key-holders in sealed
boxes, so that no key byte is ever an actor's argument or result.
"""

from __future__ import annotations

from actors.handles.keys import fetch_keyring
from actors.handles.local import LocalHandles
from actors.handles.protocol import Handle, Handles
from actors.handles.remote import RayHandles
from actors.handles.seal import SealClient

__all__ = ["Handle", "Handles", "LocalHandles", "RayHandles", "SealClient", "fetch_keyring"]
