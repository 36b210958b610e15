"""What a running server tells: one line of log a request, and counters for Prometheus; never contents or secrets."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import start_http_server

from keyassay.aws.application import Exchange
from keyassay.server.settings import Address

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def start_logging(form: str) -> Any:
    """Set up logs on standard error: one JSON object a line, or text for people.

    Returns:
        The logger; the libraries' warnings go the same way.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line in one piece
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    return structlog.get_logger().bind()  # bound once, instead of for each line


class Observer:
    """Counts and logs exchanges.

    Args:
        log: from ``start_logging``.
        version: of keyassay.
    """

    def __init__(self, log: Any, version: str) -> None:
        self._log = log
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "keyassay_requests", "API requests.", ["operation", "status", "error"], registry=self.registry
        )
        self._seconds = Histogram(
            "keyassay_request_seconds", "Time of API requests.", ["operation"], buckets=_SECONDS, registry=self.registry
        )
        #: looked up once: as many as there are labels
        self._counters: dict[tuple[str, int, str], tuple[Counter, Histogram]] = {}
        info = Gauge("keyassay_info", "This release.", ["version"], registry=self.registry)
        info.labels(version).set(1)

    def __call__(self, exchange: Exchange) -> None:
        """Note one exchange."""
        # strangers choose neither names nor numbers of the counters' labels: both come from the model
        what = exchange.operation, exchange.status, exchange.error
        counters = self._counters.get(what)
        if counters is None:
            counters = self._requests.labels(*what), self._seconds.labels(exchange.operation)
            self._counters[what] = counters
        counters[0].inc()
        counters[1].observe(exchange.seconds)
        fields = {
            "request_id": exchange.request_id,
            "method": exchange.method,
            "operation": exchange.operation,
            "account": exchange.account_id,
            "access_key": exchange.access_key_id,
            "source": exchange.source_address,
            "status": exchange.status,
            "error": exchange.error,
            "ms": round(exchange.seconds * 1000, 1),
        }
        if exchange.failure:
            self._log.error("failure", **fields, where=exchange.failure)
        else:
            self._log.info("request", **{name: value for name, value in fields.items() if value != ""})

    def show(self, address: Address) -> threading.Thread:
        """Let Prometheus read the counters at ``/metrics`` of a loopback address."""
        self._server, thread = start_http_server(address.port, address.host, self.registry)
        self.metrics_port = self._server.server_port
        return thread

    def close(self) -> None:
        """End ``show``."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    _server: Any = None
    #: the port that was taken, 0 before ``show``
    metrics_port: int = 0
