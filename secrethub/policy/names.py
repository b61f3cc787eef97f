"""Names of policies have no case, as in Vault, and so have paths that name them.

``sys/policies/acl/Ops`` is another spelling of ``sys/policies/acl/ops``. A request is brought to the one
spelling before anything looks at it, and a rule when its policy is read: so what is decided on is what is
acted on, and no spelling leads past a rule.
"""

from __future__ import annotations

_FOLDERS = ("sys/policies/acl/", "sys/policies/bindings/", "sys/policy/")


def fold_policy_path(path: str) -> str:
    """Return ``path`` with the name of a policy in lower case; other paths as they are.

    Args:
        path: a canonical request path, or the path of a rule in either language.
    """
    for folder in _FOLDERS:
        # Names are ASCII; of other texts lower case could be the name of a policy.
        if path.startswith(folder) and path.isascii():
            return path.lower()
    return path
