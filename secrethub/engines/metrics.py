"""What a process counts, in its own Prometheus registry; the node's metrics port merges them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestCounts(Collector):
    """Requests by operation and outcome, and how long they took.

    Plain numbers that become metrics when somebody asks: the library's own counters take locks for every
    request. Only one thread counts.
    """

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, str], int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count(self, operation: str, outcome: str, seconds: float | None = None) -> None:
        """Count a request, and how long it took, if that is known. The names are ours, so there are few."""
        self._outcomes[operation, outcome] = self._outcomes.get((operation, outcome), 0) + 1
        if seconds is None:
            return
        buckets = self._buckets.get(operation)
        if buckets is None:
            buckets = self._buckets[operation] = [0] * (len(_LATENCY) + 1)
            self._seconds[operation] = 0.0
        buckets[bisect_left(_LATENCY, seconds)] += 1
        self._seconds[operation] += seconds

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """Give both metrics out, as the registry asks."""
        requests = CounterMetricFamily(
            "secrethub_requests",
            "Requests by declared operation and outcome.",
            labels=("operation", "outcome"),
        )
        for names, count in tuple(self._outcomes.items()):
            requests.add_metric(names, count)
        yield requests
        times = HistogramMetricFamily(
            "secrethub_request_seconds",
            "Time from the decision to a durable answer.",
            labels=("operation",),
        )
        for operation, counts in tuple(self._buckets.items()):
            total, below = 0, []
            for bound, count in zip((*_LATENCY, "+Inf"), counts, strict=True):
                total += count
                below.append((str(bound), total))
            times.add_metric([operation], below, self._seconds[operation])
        yield times


class Metrics:
    """The metrics of one process. Names are stable; labels hold no path and no identity."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestCounts()
        self.registry.register(self.requests)
        self.unsealed = Gauge(
            "secrethub_unsealed", "1 while this process holds the keyring.", registry=self.registry
        )
        self.agents = Gauge(
            "secrethub_agents_connected", "Agents connected to this process.", registry=self.registry
        )
        self.pushes = Counter(
            "secrethub_agent_pushes", "Messages pushed to agents.", ("kind",), registry=self.registry
        )
        self.refusals = Counter(
            "secrethub_agent_refusals", "Agent connections refused.", ("reason",), registry=self.registry
        )
        self.audit_lag = Gauge(
            "secrethub_audit_commit_seconds",
            "Time that the newest group of audit entries took to become durable.",
            registry=self.registry,
        )
        self.audit_waiting = Gauge(
            "secrethub_audit_waiting", "Audit entries not yet durable.", registry=self.registry
        )
        self.audit_entries = Gauge(
            "secrethub_audit_entries_written",
            "Audit entries this process made durable.",
            registry=self.registry,
        )
        self.integrity_failures = Counter(
            "secrethub_integrity_failures",
            "Stored rows that failed their authentication.",
            ("table",),
            registry=self.registry,
        )
        self.archived = Counter(
            "secrethub_audit_archived",
            "Entries that this process moved from the ledger into its archive.",
            registry=self.registry,
        )
        self.sink_behind = Gauge(
            "secrethub_audit_sink_behind",
            "Entries that a sink was not given yet, told by the process that has it.",
            ("sink",),
            registry=self.registry,
        )
        self.sink_lag = Gauge(
            "secrethub_audit_sink_lag_seconds",
            "Age of the oldest entry that a sink was not given yet.",
            ("sink",),
            registry=self.registry,
        )
        self.sink_failures = Counter(
            "secrethub_audit_sink_failures",
            "Deliveries that a sink did not take.",
            ("sink",),
            registry=self.registry,
        )
        self.rotations = Counter(
            "secrethub_rotations", "Rotations that ended.", ("outcome",), registry=self.registry
        )
        self.leases_ended = Counter(
            "secrethub_leases_ended",
            "Leases and intents that this process ended at their targets.",
            registry=self.registry,
        )
        self.leases_failed = Counter(
            "secrethub_leases_failed",
            "Attempts to end a lease that failed.",
            registry=self.registry,
        )
        self.leases = Gauge(
            "secrethub_leases",
            "Leases of the cluster, by kind of engine.",
            ("engine",),
            registry=self.registry,
        )
        self.leases_due = Gauge(
            "secrethub_leases_due", "Leases that should be over and are not.", registry=self.registry
        )
        self.leases_failing = Gauge(
            "secrethub_leases_failing",
            "Leases whose end failed and is tried again within ten minutes.",
            registry=self.registry,
        )
        self.leases_dead = Gauge(
            "secrethub_leases_dead", "Leases whose end was given up.", registry=self.registry
        )
        self.strays = Gauge(
            "secrethub_strays",
            "Users at a target that this cluster made and that have no lease, as they were last found.",
            ("mount", "target"),
            registry=self.registry,
        )
        self.lease_quota_refusals = Counter(
            "secrethub_lease_quota_refusals",
            "Leases that were not made because a quota has as many as it allows.",
            registry=self.registry,
        )
        self.lease_quota_leases = Gauge(
            "secrethub_lease_quota_leases",
            "Leases that a quota counts.",
            ("quota",),
            registry=self.registry,
        )
        self.lease_quota_most = Gauge(
            "secrethub_lease_quota_most",
            "Leases that a quota allows.",
            ("quota",),
            registry=self.registry,
        )
        self.throttled = Counter(
            "secrethub_throttled", "Requests refused by throttling.", registry=self.registry
        )
