"""The route of the metrics of the index, in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from app.api.services.services import ServicesDep
from catalog.index.follower import IndexFollower

router = APIRouter(include_in_schema=False)

# name of the metric, field of the index report, help text
GAUGES = (
    ("generation", "generation", "Generation of the main segment; 0 if there is none."),
    ("vectors", "vectors", "Searchable vectors."),
    ("fresh_vectors", "fresh", "Vectors in the segments in memory, outside the main segment."),
    ("memory_bytes", "memory", "Bytes that count against DELTADEX_INDEX_MEMORY."),
    ("covered_seq", "covered_seq", "Sequence number of the last change that searches cover."),
    ("degraded", "problem", "1 while a segment is missing or damaged."),
)


class IndexCollector(Collector):
    """Collects the metrics of the index at each scrape, labeled by the id of the space."""

    def __init__(self, index: IndexFollower) -> None:
        self._index = index

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("deltadex_index_loaded", "1 once searches can be answered.", int(self._index.loaded))
        yield CounterMetricFamily(
            "deltadex_index_damaged_segments_total",
            "Segments that this process found damaged.",
            self._index.damaged_segments,
        )
        reports = self._index.report()
        for name, field, text in GAUGES:
            family = GaugeMetricFamily(f"deltadex_index_{name}", text, labels=["space_id"])
            for report in reports:
                value = getattr(report, field)
                family.add_metric([str(report.space_id)], int(value is not None) if field == "problem" else value)
            yield family


@router.get("/metrics", response_class=PlainTextResponse)
def get_metrics(services: ServicesDep) -> Response:
    """Expose the metrics of this process to admins: they count private models, too."""
    registry = CollectorRegistry()  # not the global one: two apps in one process must not share their metrics
    registry.register(IndexCollector(services.index))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
