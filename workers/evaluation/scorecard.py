"""The scorecard: every representation of a pool, scored with the same metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from catalog.errors import MissingExtra, Refused
from workers.evaluation import measures
from workers.evaluation.bootstrap import bootstrap_interval
from workers.evaluation.measures import Floats, Ints
from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations import EvaluationContext, Representation, Vectors

# silhouettes that the paper reports
PAPER_BASES = {"Llama-3.1-8B": 0.645, "Gemma-2-9B": 0.545, "Qwen-2.5-7B": 0.653}
PAPER_BASELINES = {"flattened_weights": -0.043, "salient_mask": 0.190, "output_sentences": 0.087}
PUBLISHED = {
    "source": "the paper's own figures on its own pools (arXiv 2509.04442), for comparison; not measured here",
    "delta_activations": PAPER_BASES,
    "average_of_the_three": PAPER_BASELINES,
}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metrics:
    """The metrics of one geometry."""

    silhouette: Estimate
    silhouette_centered: Estimate  # after subtracting the mean vector of the pool
    nearest: Estimate
    adjusted_rand: Estimate
    clusters: int
    noise: int  # models in no cluster


@dataclass(frozen=True, eq=False)
class Result:
    """The metrics of one representation, or the reason why they are missing."""

    name: str
    metrics: Metrics | None = None
    dimension: int | None = None
    nbytes: float | None = None  # per model
    seconds: float | None = None  # per model
    vectors: Vectors | None = None
    gram: Floats | None = None
    clusters: Ints | None = None  # (n,), -1 is noise
    contract: dict[str, Any] | None = None
    missing: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields except the arrays."""
        fields = ("name", "dimension", "nbytes", "seconds", "contract", "missing")
        metrics = asdict(self.metrics) if self.metrics else None
        return {**{name: getattr(self, name) for name in fields}, "metrics": metrics}


def score(
    pool: Pool,
    representations: Sequence[Representation],
    context: EvaluationContext,
    *,
    min_cluster_size: int,
    resamples: int,
    seed: int,
    progress: Progress,
) -> list[Result]:
    """Compute and score each representation. One that does not exist for the pool gets a result with the reason.

    `resamples` and `seed` are those of the bootstrap.
    """
    results = []
    for representation in representations:
        try:
            computed = representation.compute(pool, context, progress)
        except (Refused, MissingExtra) as error:
            results.append(Result(representation.name, missing=str(error)))
            continue
        gram = computed.vectors.gram()
        clusters = measures.density_clusters(gram, min_cluster_size)
        results.append(
            Result(
                representation.name,
                compute_metrics(gram, pool.class_indices, clusters, resamples, seed),
                computed.vectors.dimension,
                computed.vectors.nbytes,
                computed.seconds / len(pool),
                computed.vectors,
                gram,
                clusters,
                computed.contract,
            )
        )
    return results


def compute_metrics(gram: Floats, labels: Ints, clusters: Ints, resamples: int, seed: int) -> Metrics:
    """All metrics of one geometry. The clusters are fitted once to the whole pool, not to each resample."""
    distance, centered_distance = measures.distances(gram), measures.distances(measures.centered(gram))

    def estimate(measure: partial[float]) -> Estimate:
        low, high = bootstrap_interval(lambda weights: measure(weights=weights), labels, resamples, seed)
        return Estimate(measure(), low, high)

    return Metrics(
        estimate(partial(measures.silhouette, distance, labels)),
        estimate(partial(measures.silhouette, centered_distance, labels)),
        estimate(partial(measures.nearest_accuracy, distance, labels)),
        estimate(partial(measures.adjusted_rand, labels, clusters)),
        clusters=int(clusters.max()) + 1,
        noise=int((clusters < 0).sum()),
    )
