"""Route: the index in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from app.api.services.services import ServicesDep
from catalog.index.follower import Follower

router = APIRouter(include_in_schema=False)

# name of the metric, of the report's field, and what it says
GAUGES = (
    ("generation", "generation", "Main segment that is searched; 0 where there is none."),
    ("vectors", "vectors", "Vectors that can be found."),
    ("fresh_vectors", "fresh", "Vectors beside the main segment, in memory."),
    ("memory_bytes", "memory", "Bytes that count against DELTADEX_INDEX_MEMORY."),
    ("covered_seq", "covered_seq", "Last change of the catalog that searches take into account."),
    ("degraded", "problem", "1 while a segment that should be searched is missing or damaged."),
)


class IndexCollector(Collector):
    """Reads the figures of the index when it is asked for them; the label is the id of a space."""

    def __init__(self, index: Follower) -> None:
        self._index = index

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("deltadex_index_loaded", "1 once searches can be answered.", int(self._index.loaded))
        yield CounterMetricFamily(
            "deltadex_index_damages_total", "Segments that this process found damaged.", self._index.damages
        )
        reports = self._index.report()
        for name, field, text in GAUGES:
            family = GaugeMetricFamily(f"deltadex_index_{name}", text, labels=["space_id"])
            for report in reports:
                value = getattr(report, field)
                family.add_metric([str(report.space_id)], int(value is not None) if field == "problem" else value)
            yield family


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(services: ServicesDep) -> Response:
    """What this process has loaded."""
    registry = CollectorRegistry()  # an app's own, so that two in one process do not add up
    registry.register(IndexCollector(services.index))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
