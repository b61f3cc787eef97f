"""Engine kind ``system``: what is mounted at ``sys/``."""

from __future__ import annotations

from secrethub.engines.engine import Operation
from secrethub.engines.system.archive import archive_operations
from secrethub.engines.system.auth_mounts import auth_operations
from secrethub.engines.system.bindings import binding_operations
from secrethub.engines.system.capabilities import capability_operations
from secrethub.engines.system.init import init_operations
from secrethub.engines.system.lease_quotas import lease_quota_operations
from secrethub.engines.system.lease_revocation import lease_revocation_operations
from secrethub.engines.system.lease_search import lease_search_operations
from secrethub.engines.system.leases import lease_operations
from secrethub.engines.system.ledger import ledger_operations
from secrethub.engines.system.ledger_entries import entries_operations
from secrethub.engines.system.ledger_export import export_operations
from secrethub.engines.system.locked_users import locked_user_operations
from secrethub.engines.system.mounts import mount_operations
from secrethub.engines.system.password_policies import password_policy_operations
from secrethub.engines.system.policies import policy_operations
from secrethub.engines.system.quotas import quota_operations
from secrethub.engines.system.rekey import rekey_operations
from secrethub.engines.system.remount import remount_operations
from secrethub.engines.system.replay import replay_operations
from secrethub.engines.system.restore import restore_operations
from secrethub.engines.system.root_token import root_token_operations
from secrethub.engines.system.rotation import rotation_operations
from secrethub.engines.system.seal import seal_operations
from secrethub.engines.system.sealing import sealing_operations
from secrethub.engines.system.secret_rotation import secret_rotation_operations
from secrethub.engines.system.secret_rotation_runs import secret_rotation_run_operations
from secrethub.engines.system.simulate import simulate_operations
from secrethub.engines.system.sinks import sink_operations
from secrethub.engines.system.slots import slot_operations
from secrethub.engines.system.specs import spec_operations
from secrethub.engines.system.templates import template_operations
from secrethub.engines.system.tools import tool_operations
from secrethub.engines.system.why import why_operations
from secrethub.engines.system.wrapping import wrapping_operations


class SystemEngine:
    """The system endpoints, one module an area."""

    kind = "system"

    def operations(self) -> tuple[Operation, ...]:
        """Return what ``sys/`` offers."""
        return (
            *init_operations(),
            *seal_operations(),
            *sealing_operations(),
            *restore_operations(),
            *auth_operations(),
            *rekey_operations(),
            *root_token_operations(),
            *locked_user_operations(),
            *rotation_operations(),
            *slot_operations(),
            *secret_rotation_operations(),
            *secret_rotation_run_operations(),
            *mount_operations(),
            *remount_operations(),
            *policy_operations(),
            *password_policy_operations(),
            *simulate_operations(),
            *replay_operations(),
            *binding_operations(),
            *template_operations(),
            *ledger_operations(),
            *entries_operations(),
            *export_operations(),
            *why_operations(),
            *archive_operations(),
            *sink_operations(),
            *capability_operations(),
            *wrapping_operations(),
            *tool_operations(),
            *spec_operations(),
            *quota_operations(),
            *lease_quota_operations(),
            *lease_operations(),
            *lease_search_operations(),
            *lease_revocation_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount
