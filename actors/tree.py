"""The supervision tree as data: who supervises whom, by which rules, under which name.

::

    supervisor               one per cluster
     ├─ seal-state           permanent, one_for_one
     ├─ distributed-lock     permanent
     ├─ session-directory    permanent
     └─ audit-notary         permanent
    node-supervisor@<node>   one per node, not a child of supervisor
     ├─ key-holder@<node>          permanent
     ├─ lease-manager@<node>       permanent
     └─ rotation-scheduler@<node>  permanent

Children of one supervisor do not need each other, so each is restarted alone. A child that keeps
failing makes its supervisor give up, and a fresh one starts the whole branch again.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.restart import ChildSpec, Rules

NAMESPACE = "secrethub"
"""Ray namespace of every named actor."""

SEAL_STATE = "seal-state"
DISTRIBUTED_LOCK = "distributed-lock"
SESSION_DIRECTORY = "session-directory"
AUDIT_NOTARY = "audit-notary"
KEY_HOLDER = "key-holder"
LEASE_MANAGER = "lease-manager"
ROTATION_SCHEDULER = "rotation-scheduler"


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A supervisor and its children.

    Attributes:
        name: the supervisor's kind.
        rules: what it goes by.
        children: whom it starts, ascending by ``order``.
        per_node: whether every node has one, or the cluster has one.
    """

    name: str
    rules: Rules
    children: tuple[ChildSpec, ...]
    per_node: bool = False

    def __post_init__(self) -> None:
        orders = [child.order for child in self.children]
        if orders != sorted(set(orders)) or len({child.name for child in self.children}) != len(orders):
            raise ValueError(f"{self.name}: children need distinct names and ascending orders")


SUPERVISOR = Branch(
    name="supervisor",
    rules=Rules(strategy="one_for_one", intensity=10, period=30.0),
    children=(
        ChildSpec(name=SEAL_STATE, order=1),
        ChildSpec(name=DISTRIBUTED_LOCK, order=2),
        ChildSpec(name=SESSION_DIRECTORY, order=3),
        ChildSpec(name=AUDIT_NOTARY, order=4),
    ),
)

NODE_SUPERVISOR = Branch(
    name="node-supervisor",
    rules=Rules(strategy="one_for_one", intensity=10, period=30.0),
    children=(
        ChildSpec(name=KEY_HOLDER, order=1),
        ChildSpec(name=LEASE_MANAGER, order=2),
        ChildSpec(name=ROTATION_SCHEDULER, order=3),
    ),
    per_node=True,
)


def actor_name(kind: str, node: str | None = None) -> str:
    """Return the name under which an actor is found: ``seal-state``, ``key-holder@<node>``."""
    return kind if node is None else f"{kind}@{node}"


def nodes_of(names: list[str], kind: str) -> list[str]:
    """Return the nodes that have an actor of ``kind`` among the actor ``names``, sorted."""
    prefix = f"{kind}@"
    return sorted({name.removeprefix(prefix) for name in names if name.startswith(prefix)})
