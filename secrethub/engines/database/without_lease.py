"""Which users at a target have no lease.

A target is asked first and the leases then: an intent is there before its user is, and a lease until its user
is gone. A user that ends in between would look like a stray, so whoever has no lease is looked for once more.
No marker comes to a lease later, so whoever is still there then is a stray for ever.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from secrethub.engines.database.usernames import cluster_tag, marker_of
from secrethub.engines.runtime import Core
from secrethub.storage import leases


async def without_lease(core: Core, users: Callable[[], Awaitable[Sequence[str]]]) -> dict[str, str]:
    """Return of a target's users those of this cluster that have no lease, with their markers.

    Args:
        core: unsealed.
        users: asks the target for the names of its users.
    """
    tag = cluster_tag(core.keys.cluster_id)
    marked = {name: marker for name in await users() if (marker := marker_of(name, tag)) is not None}
    known = await leases.known_markers(core.database, list(marked.values()))
    found = {name: marker for name, marker in sorted(marked.items()) if marker not in known}
    if not found:
        return {}
    still = set(await users())
    return {name: marker for name, marker in found.items() if name in still}
