"""All numbers of a server as OpenMetrics text. They are counted elsewhere, and read here when somebody asks.

No label has a value that a client or a player can choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition

from xmppd import __version__
from xmppd import log as logs
from xmppd.allocator import heap
from xmppd.app import App
from xmppd.core.questions import MOST as MOST_QUESTIONS
from xmppd.core.tally import Spread
from xmppd.parts.metrics import Counter, Gauge, Histogram
from xmppd.seeing.health import OK
from xmppd.store.sqlite.store import SqliteStore

CONTENT_TYPE: Final[str] = exposition.CONTENT_TYPE_LATEST

EVENTS: Final = {
    "accepting-paused": "error",
    "bus-lost": "warning",
    "cache-channel-lost": "warning",
    "cache-lost": "warning",
    "cassandra-node-down": "warning",
    "certificate-doubtful": "warning",
    "clock-behind": "warning",
    "greedy-client-cut-off": "warning",
    "keys-not-fetched": "warning",
    "node-alone": "warning",
    "node-list-away": "warning",
    "node-lost": "warning",
    "node-superseded": "error",
    "node-unreachable": "warning",
    "not-parted": "warning",
    "reload-failed": "error",
    "reload-refused": "error",
    "removal-put-off": "warning",
    "stanza-failed": "error",
    "store-does-not-answer": "error",
    "store-failed": "warning",
    "webhook-failing": "warning",
    "webhook-gone": "warning",
}
"""Events that are shown before they happen, so that the first one is seen to be one."""
LEVELS: Final = ("pending", "in_flight", "waiting")
"""Fields of what stores count that rise and fall."""
SHARED_LEVELS: Final = ("up", "heard", "owed", "mean_microseconds")
"""The same of the shared cache."""

Labelled = Iterable[tuple[Sequence[str], float]]


def text(app: App, checks: Mapping[str, str]) -> bytes:
    """The answer to whoever asks; `checks` are what `Health` said."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(Families(app, checks))
    answer: bytes = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return answer


class Families:
    """The families of one server at one moment, in the form of a collector."""

    def __init__(self, app: App, checks: Mapping[str, str]) -> None:
        self._app = app
        self._checks = checks

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before it is asked for."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield InfoMetricFamily("xmppd", "The version of this server.", {"version": __version__})
        yield gauge(
            "xmppd_ready",
            "Whether each check of /readyz is well.",
            "check",
            (((name,), float(said == OK)) for name, said in self._checks.items()),
        )
        yield from self._clients()
        yield from self._stanzas()
        yield from self._loop()
        yield from self._queues()
        yield from self._caches()
        yield from self._store()
        yield from self._nodes()
        yield from self._operation()
        yield from self._spans()
        yield from self._plugins()

    def _clients(self) -> Iterator[Metric]:
        app = self._app
        service, sessions = app.service, app.sessions
        streams = [((kind, security), count) for (kind, security), count in service.bound.items()]
        yield gauge(
            "xmppd_streams",
            "Connections with a bound resource, by what carries them and how TLS came to protect them.",
            ("transport", "security"),
            streams,
        )
        detached = len(app.resumption)
        yield gauge(
            "xmppd_sessions",
            "Sessions of this node: those with a connection, and those that wait to be resumed.",
            "state",
            ((("connected",), len(sessions.by_full) - detached), (("detached",), detached)),
        )
        yield GaugeMetricFamily(
            "xmppd_accounts_online", "Accounts with sessions here.", len(sessions.accounts)
        )
        yield counter(
            "xmppd_logins",
            "Attempts to log in, by mechanism and outcome: success, or the condition of the refusal.",
            ("mechanism", "outcome"),
            [*app.logins.outcomes.items()],
        )
        yield counter(
            "xmppd_refusals",
            "What clients without a session were refused, by the event of the log.",
            "rule",
            [((event,), count) for event, count in app.reports.counts.items()],
        )

    def _stanzas(self) -> Iterator[Metric]:
        router = self._app.router
        taken = {
            "message": router.messages_taken,
            "presence": router.presences_taken,
            "iq": router.iqs_taken,
        }
        yield counter(
            "xmppd_stanzas",
            "Stanzas that clients sent and that were well-formed, by kind.",
            "kind",
            [((kind,), count) for kind, count in taken.items()],
        )
        yield counter(
            "xmppd_stanzas_refused",
            "Stanzas whose sender got an error: by kind, condition, and the module that refused.",
            ("kind", "condition", "rule"),
            [*router.refused.items()],
        )
        yield counter(
            "xmppd_stanzas_dropped",
            "Stanzas that a plugin let vanish before they were routed.",
            "kind",
            [((kind,), router.dropped[kind]) for kind in taken],
        )
        yield spreads(
            "xmppd_routing_seconds",
            "Time of one stanza each 0.1 s until it was sent on, or had to wait.",
            "kind",
            router.routing.of,
        )
        yield spreads(
            "xmppd_handling_seconds",
            "Of those that had to wait, for the store say, the time until that was over.",
            "kind",
            router.handling.of,
        )
        yield spreads(
            "xmppd_hook_seconds",
            "Time of the methods that were called for such a stanza, waits included, by plugin.",
            "plugin",
            self._app.hooks.spent.of,
        )

    def _loop(self) -> Iterator[Metric]:
        watch = self._app.seeing.watch
        if watch is None:
            return
        yield spreads(
            "xmppd_loop_lag_seconds", "How late the loop was, ten times a second.", (), {(): watch.lag}
        )
        yield spreads(
            "xmppd_gc_pause_seconds",
            "How long each collection of garbage held the loop up, by generation.",
            "generation",
            {str(generation): spread for generation, spread in enumerate(watch.pauses)},
        )

    def _queues(self) -> Iterator[Metric]:
        """What waits, and how much may (0: there is no bound)."""
        app, limits = self._app, self._app.config.limits
        rules, service = app.service.rules, app.service
        queues: dict[str, tuple[float, float]] = {
            "connections": (len(service.connections), rules.connections),
            "connections_before_login": (service.strangers, rules.connections_before_login),
            "unsent_bytes": (app.shared.unsent.size, limits.unsent_bytes),
            "unacked_bytes": (app.resumption.size, app.resumption.rules.together),
            "questions": (len(app.questions), MOST_QUESTIONS),
            "jobs": (len(app.jobs), 0),
        }
        stats = app.store_stats()
        if isinstance(app.store, SqliteStore):
            queues["store_writes"] = (stats["pending"], app.store.bound)
        else:
            cassandra = app.config.store.cassandra
            queues["store_in_flight"] = (stats["in_flight"], cassandra.in_flight)
            queues["store_waiting"] = (stats["waiting"], cassandra.waiting)
        yield gauge(
            "xmppd_queue",
            "How much is in each queue.",
            "queue",
            [((name,), it[0]) for name, it in queues.items()],
        )
        yield gauge(
            "xmppd_queue_bound",
            "How much each queue may hold; 0: there is no bound.",
            "queue",
            [((name,), it[1]) for name, it in queues.items()],
        )

    def _caches(self) -> Iterator[Metric]:
        found = self._app.caches()
        yield gauge(
            "xmppd_cache",
            "What each cache in memory holds, in entries, or bytes where its name says so.",
            "cache",
            [((name,), held) for name, held in found.items() if not name.startswith("shared_")],
        )
        if self._app.cache is None:
            return
        counters = self._app.cache.counters
        yield GaugeMetricFamily("xmppd_shared_cache_up", "Whether Redis answers.", counters["up"])
        yield GaugeMetricFamily(
            "xmppd_shared_cache_heard", "Whether notices of other nodes arrive by Redis.", counters["heard"]
        )
        yield GaugeMetricFamily(
            "xmppd_shared_cache_owed", "Changes that Redis was not told of yet.", counters["owed"]
        )
        yield counter(
            "xmppd_shared_cache",
            "What was done with the shared cache, by the names of status.",
            "event",
            [((name,), count) for name, count in counters.items() if name not in SHARED_LEVELS],
        )

    def _store(self) -> Iterator[Metric]:
        yield counter(
            "xmppd_store",
            "What the store did, by the names of status.",
            "operation",
            [((name,), count) for name, count in self._app.store_stats().items() if name not in LEVELS],
        )

    def _nodes(self) -> Iterator[Metric]:
        cluster = self._app.cluster
        if cluster is None:
            return
        mesh = cluster.mesh
        members = {member.name: member for member in mesh.present()}
        yield GaugeMetricFamily("xmppd_nodes", "Nodes that live, this one included.", len(members) + 1)
        yield GaugeMetricFamily(
            "xmppd_sessions_elsewhere", "Sessions of other nodes that are known here.", len(mesh.whereabouts)
        )
        yield gauge(
            "xmppd_trunk_connected",
            "Whether there is a connection with each other node that lives.",
            "node",
            [((name,), float(member.carrier is not None)) for name, member in members.items()],
        )
        yield gauge(
            "xmppd_trunk_lag_seconds",
            "How long the last frame to a node was not acknowledged.",
            "node",
            [((name,), member.trunk.lag) for name, member in members.items()],
        )
        yield gauge(
            "xmppd_trunk_unacknowledged_bytes",
            "What a node has not acknowledged; from 33554432 on senders wait.",
            "node",
            [((name,), member.trunk.size) for name, member in members.items()],
        )
        yield counter(
            "xmppd_trunk_frames",
            "Frames that were sent to a node.",
            "node",
            [((name,), member.trunk.sent) for name, member in members.items()],
        )

    def _operation(self) -> Iterator[Metric]:
        app = self._app
        events = dict.fromkeys(EVENTS.items(), 0) | dict(logs.counted())
        yield counter(
            "xmppd_log_events",
            "Lines of the log from warnings on, also those that were left out, by event.",
            ("event", "level"),
            [*events.items()],
        )
        yield counter(
            "xmppd_mistakes",
            "Mistakes in the server or a plugin, by where they came up.",
            "where",
            (
                (("stanza",), app.router.errors),
                (("hook",), app.hooks.failures),
                (("job",), app.jobs.failed + app.lasting.failed),
            ),
        )
        yield CounterMetricFamily("xmppd_http_requests", "Requests by HTTP.", app.routes.served)
        yield CounterMetricFamily("xmppd_http_refused", "Of them, refused ones.", app.routes.refused)
        yield gauge(
            "xmppd_heap_bytes",
            "What the C library's heap has in use, and freed but kept.",
            "state",
            [((name,), size) for name, size in heap().items()],
        )
        yield gauge(
            "xmppd_certificate_expires_timestamp_seconds",
            "When each certificate ends.",
            "file",
            [((str(file),), end) for file, end in app.shared.certificates.expiries().items()],
        )

    def _spans(self) -> Iterator[Metric]:
        spans = self._app.seeing.spans
        if spans is not None:
            yield counter(
                "xmppd_spans",
                "Spans for the collector: exported, failed to be, or dropped since too many waited.",
                "outcome",
                [((outcome,), count) for outcome, count in spans.counts.items()],
            )

    def _plugins(self) -> Iterator[Metric]:
        for name, metric in sorted(self._app.server.metrics.items()):
            full = f"xmppd_plugin_{name}"
            if isinstance(metric, Counter):
                yield CounterMetricFamily(full, metric.help, metric.value)
            elif isinstance(metric, Gauge):
                yield GaugeMetricFamily(full, metric.help, metric.value)
            elif isinstance(metric, Histogram):
                yield spreads(full, metric.help, (), {(): metric})


def labels_of(labels: str | Sequence[str]) -> Sequence[str]:
    """The names of labels, of which there may be one."""
    return (labels,) if isinstance(labels, str) else labels


def gauge(name: str, help: str, labels: str | Sequence[str], values: Labelled) -> Metric:
    """A gauge with labels."""
    family = GaugeMetricFamily(name, help, labels=labels_of(labels))
    for label, value in values:
        family.add_metric(label, value)
    return family


def counter(name: str, help: str, labels: str | Sequence[str], values: Labelled) -> Metric:
    """A counter with labels."""
    family = CounterMetricFamily(name, help, labels=labels_of(labels))
    for label, value in values:
        family.add_metric(label, value)
    return family


def spreads(name: str, help: str, labels: str | Sequence[str], found: Mapping[Any, Spread]) -> Metric:
    """A histogram, one for each value of its label."""
    family = HistogramMetricFamily(name, help, labels=labels_of(labels))
    for label, spread in found.items():
        total, buckets = 0, []
        for bound, count in zip((*map(str, spread.buckets), "+Inf"), spread.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(labels_of(label), buckets, sum_value=spread.sum)
    return family
