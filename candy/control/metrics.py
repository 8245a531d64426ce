"""A relay's figures in Prometheus' text format.

    Figures ─▶ Exposition.text() ─▶ candy_members 12 …

Rules:
 1. Names and units are by Prometheus' conventions: seconds and bytes, `_total` at the end of what only grows.
 2. No member has a label: ten thousand members are ten thousand series of each. Labels are reasons, results, states,
    workers and networks.
 3. Figures are read when they are asked for, and nothing is kept but what a histogram of lateness has counted.

prometheus_client is imported with the first scrape, for it takes two megabytes. This module does not know where the
figures come from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many of something were up to each bound, and their sum."""

    bounds: Sequence[float]
    """Without the last, which is none."""
    counts: Sequence[int]
    """One more than bounds. Each counts for itself, unlike Prometheus'."""
    sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a relay knows at one moment."""

    version: str
    members: Mapping[str, int]
    """By the path of their network."""
    connections: Mapping[str, int]
    """By state."""
    connections_most: int
    logins: Mapping[str, int]
    """By result."""
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    copies: int
    drops: Mapping[str, int]
    """By reason, all of them."""
    holds: Mapping[str, int]
    """How often what is sent to a member (`down`), or comes from it (`up`), had to wait for a limit."""
    over_quota: Mapping[str, int]
    """Members that have used up their quotas, by the path of their network."""
    queued_bytes: int
    queue_delay: Histogram
    """Seconds, of packets that had to wait."""
    worker_cpu_s: Sequence[float]
    loop_lag: Histogram
    """Seconds."""
    leases_used: Mapping[str, int]
    """By the path of their network; so with those that are free."""
    leases_free: Mapping[str, int]
    certificate_expiry: float | None
    """Unix seconds; None without TLS."""
    nats_up: bool | None = None
    """There is a connection to NATS; None without a cluster, and so with the next."""
    relays: int | None = None
    """That are there, this one among them."""
    relay_members: Mapping[str, int] = field(default_factory=dict)
    """Of all relays, by name; empty without a cluster."""


class Exposition:
    """Prometheus' view of a relay.

    Args:
        figures: gives those of the moment.
    """

    def __init__(self, figures: Callable[[], Figures]) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._figures = figures
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Of this moment."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def collect(self) -> Iterator["Metric"]:
        """For the registry."""
        return families(self._figures())


def families(figures: Figures) -> Iterator["Metric"]:
    """The metrics, without those of the process."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    def gauge(name: str, what: str, value: float) -> "Metric":
        return GaugeMetricFamily(name, what, value=value)

    def gauges(name: str, what: str, label: str, values: Mapping[str, float]) -> "Metric":
        family = GaugeMetricFamily(name, what, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        return family

    def counter(name: str, what: str, value: float) -> "Metric":
        return CounterMetricFamily(name, what, value=value)

    def counters(name: str, what: str, label: str, values: Mapping[str, float]) -> "Metric":
        family = CounterMetricFamily(name, what, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        return family

    yield InfoMetricFamily("candy_build", "The version that runs.", value={"version": figures.version})
    yield gauges("candy_members", "Members that are logged in.", "network", figures.members)
    yield gauges("candy_connections", "Connections by how far they have come.", "state", figures.connections)
    yield gauge("candy_connections_limit", "Connections that there may be at once.", figures.connections_most)
    yield counters("candy_logins", "Log-ins by how they ended.", "result", figures.logins)
    yield counter("candy_received_packets", "Packets from members and interfaces.", figures.packets_in)
    yield counter("candy_received_bytes", "Bytes of these, with their frames.", figures.bytes_in)
    yield counter("candy_sent_packets", "Packets to members and interfaces.", figures.packets_out)
    yield counter("candy_sent_bytes", "Bytes of these, with their frames.", figures.bytes_out)
    yield counter("candy_broadcast_copies", "Copies of broadcast and multicast packets.", figures.copies)
    yield counters("candy_dropped_packets", "Packets and messages not delivered.", "reason", figures.drops)
    yield counters("candy_limit_holds", "Times that something had to wait for a limit.", "direction", figures.holds)
    yield gauges("candy_members_over_quota", "Members with no quota left.", "network", figures.over_quota)
    yield gauge("candy_queue_bytes", "Memory of all that waits for members.", figures.queued_bytes)
    yield _histogram("candy_queue_delay_seconds", "How long packets waited that had to.", figures.queue_delay)
    busy = {str(number): seconds for number, seconds in enumerate(figures.worker_cpu_s)}
    yield counters("candy_worker_cpu_seconds", "CPU time of each forwarding thread.", "worker", busy)
    yield _histogram("candy_event_loop_lag_seconds", "How late the event loop was.", figures.loop_lag)
    yield gauges("candy_leases_used", "Addresses of the pool that are taken.", "network", figures.leases_used)
    yield gauges("candy_leases_free", "Addresses of the pool that are free.", "network", figures.leases_free)
    if figures.certificate_expiry is not None:
        what = "When the TLS certificate ends."
        yield gauge("candy_certificate_expiry_timestamp_seconds", what, figures.certificate_expiry)
    if figures.nats_up is not None and figures.relays is not None:
        yield gauge("candy_nats_up", "Whether there is a connection to NATS.", figures.nats_up)
        yield gauge("candy_relays", "Relays of the cluster that are there.", figures.relays)
        yield gauges("candy_relay_members", "Members at each relay of the cluster.", "relay", figures.relay_members)


def _histogram(name: str, what: str, histogram: Histogram) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily

    buckets = []
    total = 0
    for bound, count in zip((*histogram.bounds, inf), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == inf else repr(float(bound)), float(total)))
    return HistogramMetricFamily(name, what, buckets=buckets, sum_value=histogram.sum)
