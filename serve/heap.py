"""Garbage collection of a serving process: not over what stays for ever, and not all the time.

A request makes some hundred objects that go away by counting references; cycles among them are rare. With
Python's defaults the collector runs some hundred times a second under load, and every now and then walks over
each object of every library: a pause of tens of milliseconds for whoever asks meanwhile.
"""

from __future__ import annotations

import gc

_YOUNG = 20_000
"""New objects between two collections of the young ones."""
_OLDER = 20
"""Collections of one generation until the next older one is collected, too."""


def settle() -> None:
    """Take what exists now for permanent; called once, when a process has been started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
