"""Figures of a coordinator for Prometheus, on a port of their own: numbers of the federation, never of a patient."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Gauge, Summary, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ...core.errors import ConfigError
from .hall import Hall
from .snapshot import snapshot

_SITES = (
    ("site_connected", "whether the site is connected", lambda site: float(site["connected"])),
    ("bytes_in", "bytes that came from the site", lambda site: site["bytes_in"]),
    ("bytes_out", "bytes that went to the site", lambda site: site["bytes_out"]),
    ("answers", "answers of the site, faults among them", lambda site: site["answered"]),
)


@dataclass(eq=False)
class Meter:
    """What is measured of a federation.

    Args:
        hall: of the federation; it is looked at when somebody asks.
        registry: of this coordinator alone.
    """

    hall: Hall
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _figures: set[str] = field(default_factory=set)  # those that are shown

    def __post_init__(self) -> None:
        self.registry.register(_Hall(self.hall))
        self._round = Gauge("fedloom_round", "the last closed round", registry=self.registry)
        self._seconds = Summary("fedloom_round_seconds", "seconds that a round took", registry=self.registry)
        self._figure = Gauge(
            "fedloom_figure", "a figure of the model as measured last", ["figure"], registry=self.registry
        )

    def closed(self, round: int, seconds: float, figures: Mapping[str, float] | None = None) -> None:
        """Take a closed round in: its number, its seconds, and the figures if the model was measured."""
        self._round.set(round)
        self._seconds.observe(seconds)
        if figures:
            for name in self._figures - figures.keys():
                self._figure.remove(name)
            self._figures = set(figures)
        for name, value in (figures or {}).items():
            self._figure.labels(name).set(value)

    def serve(self, host: str, port: int) -> "Port":
        """Answer who asks, on a thread; raises `ConfigError` if the port is taken. Port 0 lets the system choose."""
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise ConfigError(
                f"cannot give figures on {host}:{port}: {error.strerror or error}; choose another --metrics."
            ) from error
        return Port(server, thread)


@dataclass(frozen=True, eq=False)
class Port:
    """Where figures are given."""

    server: WSGIServer
    thread: Thread

    @property
    def number(self) -> int:
        """The port."""
        return int(self.server.server_port)

    def close(self) -> None:
        """Give no more figures."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass(frozen=True, eq=False)
class _Hall(Collector):
    hall: Hall

    def collect(self) -> Iterator[Metric]:
        seen = snapshot(self.hall, datetime.now(UTC))
        sites, awaited = seen["sites"], seen["awaited"]
        connected = sum(site["connected"] for site in sites)
        yield GaugeMetricFamily("fedloom_sites_connected", "sites that are connected", connected)
        yield GaugeMetricFamily("fedloom_tasks_awaited", "tasks that are not answered yet", len(awaited))
        for name, said, value in _SITES:
            kind = GaugeMetricFamily if name == "site_connected" else CounterMetricFamily
            family = kind(f"fedloom_{name}", said, labels=["site"])
            for site in sites:
                family.add_metric([site["name"]], value(site))
            yield family
        faults = CounterMetricFamily("fedloom_faults", "faults, by their class", labels=["site", "error"])
        for site in sites:
            for error, count in site["failed"].items():
                faults.add_metric([site["name"], error], count)
        yield faults
