"""Route: the index in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

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


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(services: ServicesDep) -> PlainTextResponse:
    """What this process has loaded; the label is the id of a space."""
    return PlainTextResponse("\n".join(_lines(services.index)) + "\n", media_type="text/plain; version=0.0.4")


def _lines(index: Follower) -> Iterator[str]:
    yield from _metric("index_loaded", "gauge", "1 once searches can be answered.", [("", int(index.loaded))])
    yield from _metric(
        "index_damages_total", "counter", "Segments that this process found damaged.", [("", index.damages)]
    )
    reports = index.report()
    for name, field, text in GAUGES:
        values = [getattr(report, field) for report in reports]
        samples = [
            (f'{{space_id="{report.space_id}"}}', int(value is not None) if field == "problem" else value)
            for report, value in zip(reports, values, strict=True)
        ]
        yield from _metric(f"index_{name}", "gauge", text, samples)


def _metric(name: str, kind: str, text: str, samples: list[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP deltadex_{name} {text}"
    yield f"# TYPE deltadex_{name} {kind}"
    for labels, value in samples:
        yield f"deltadex_{name}{labels} {value}"
