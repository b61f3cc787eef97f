"""What a process counts, in its own Prometheus registry; the node's metrics port merges them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one process. Names are stable; labels hold no path and no identity."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], Counter] = {}
        self._timers: dict[str, Histogram] = {}
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "secrethub_requests",
            "Requests by declared operation and outcome.",
            ("operation", "outcome"),
            registry=self.registry,
        )
        self.latency = Histogram(
            "secrethub_request_seconds",
            "Time from the decision to a durable answer.",
            ("operation",),
            buckets=_LATENCY,
            registry=self.registry,
        )
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
        self.throttled = Counter(
            "secrethub_throttled", "Requests refused by throttling.", registry=self.registry
        )

    def request(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one request. Names of operations and outcomes are ours, so there are few."""
        counter = self._counters.get((operation, outcome))
        if counter is None:
            counter = self._counters[operation, outcome] = self.requests.labels(operation, outcome)
        counter.inc()
        timer = self._timers.get(operation)
        if timer is None:
            timer = self._timers[operation] = self.latency.labels(operation)
        timer.observe(seconds)
