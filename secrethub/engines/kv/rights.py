"""What else a caller of this mount may do, beside what was decided about the request.

Operations that Vault does not have reach what Vault's own paths reach. A policy that was written with
only those in mind must hold for the others as well, so they ask about them, too.
"""

from __future__ import annotations

from secrethub.engines.engine import Capability, Context
from secrethub.engines.kv.metadata import native_prefix
from secrethub.engines.listing import denied
from secrethub.errors import PermissionDenied
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, CompiledPolicies, Question, decide


class Rights:
    """One caller's rights in one mount, at the instant of the request."""

    def __init__(self, mount: str, policies: CompiledPolicies, when: Circumstances) -> None:
        self._mount = mount
        self._native = native_prefix(mount)
        self._policies = policies
        self._when = when
        self._folders: dict[str, bool] = {}

    @classmethod
    async def of(cls, context: Context) -> Rights:
        """Return the rights of whoever asks."""
        assert context.identity is not None
        policies = await context.core.policies.compiled(context.identity)
        return cls(context.mount, policies, context.when)

    def may(self, capability: Capability, endpoint: str, path: str, *, sudo: bool = False) -> bool:
        """Tell whether something may be done to a secret or folder.

        Args:
            capability: what, in both languages.
            endpoint: where Vault's rules have it, e.g. ``data``.
            path: below the mount.
            sudo: whether it needs ``sudo`` as well.
        """
        question = Question(
            path=f"{self._mount}{endpoint}/{path}".rstrip("/"),
            acl_capability=capability,
            native_path=(self._native + path).rstrip("/"),
            native_capability=capability,
            needs_sudo=sudo,
            when=self._when,
        )
        return isinstance(decide(question, self._policies), Allowed)

    def require(self, capability: Capability, endpoint: str, path: str) -> None:
        """Check that something may be done.

        Raises:
            PermissionDenied: no.
        """
        if not self.may(capability, endpoint, path):
            raise PermissionDenied(f"no policy allows {capability} at {self._mount}{endpoint}/{path}")

    def may_know_of(self, path: str) -> bool:
        """Tell whether a list would show a secret: that of the folder in which it lies."""
        folder = path.rpartition("/")[0]
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self.may("list", "metadata", folder)
        place = f"{self._mount}metadata/{path}"
        return known and not denied(self._policies, place, self._native + path, self._when)
