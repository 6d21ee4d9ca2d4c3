"""The scorecard: every representation of a pool under the same measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from catalog.errors import MissingExtra, Refused
from workers.evaluation import measures
from workers.evaluation.bootstrap import interval
from workers.evaluation.measures import Floats, Ints
from workers.evaluation.pool import Pool, Tell
from workers.evaluation.representations import Representation, Setting, Vectors

# silhouettes of the paper
PAPERS_BASES = {"Llama-3.1-8B": 0.645, "Gemma-2-9B": 0.545, "Qwen-2.5-7B": 0.653}
PAPERS_BASELINES = {"flattened_weights": -0.043, "salient_mask": 0.190, "output_sentences": 0.087}
PUBLISHED = {
    "source": "the paper's own figures on its own pools (arXiv 2509.04442): for comparison, not measured here",
    "delta_activations": PAPERS_BASES,
    "average_of_the_three": PAPERS_BASELINES,
}


@dataclass(frozen=True)
class Figure:
    """A figure with the ends of its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """What the measures say of one geometry."""

    silhouette: Figure
    silhouette_centred: Figure  # with the pool's mean vector subtracted
    nearest: Figure
    adjusted_rand: Figure
    clusters: int
    noise: int  # models in no cluster


@dataclass(frozen=True, eq=False)
class Line:
    """One representation: its figures, or the reason why the pool has none."""

    name: str
    figures: Figures | None = None
    dimension: int | None = None
    nbytes: float | None = None  # a model
    seconds: float | None = None  # a model
    vectors: Vectors | None = None
    gram: Floats | None = None
    assigned: Ints | None = None  # clusters, (n,), -1 is noise
    contract: dict[str, Any] | None = None
    missing: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Without the arrays."""
        told = ("name", "dimension", "nbytes", "seconds", "contract", "missing")
        figures = asdict(self.figures) if self.figures else None
        return {**{name: getattr(self, name) for name in told}, "figures": figures}


def score(
    pool: Pool,
    representations: Sequence[Representation],
    setting: Setting,
    *,
    smallest: int,
    resamples: int,
    seed: int,
    tell: Tell,
) -> list[Line]:
    """A line for each representation. One that the pool cannot have stands there with its reason.

    `smallest` is the size of the smallest cluster, `resamples` and `seed` the bootstrap's.
    """
    lines = []
    for each in representations:
        try:
            made = each.make(pool, setting, tell)
        except (Refused, MissingExtra) as error:
            lines.append(Line(each.name, missing=str(error)))
            continue
        gram = made.vectors.gram()
        assigned = measures.density_clusters(gram, smallest)
        lines.append(
            Line(
                each.name,
                judge(gram, pool.numbers, assigned, resamples, seed),
                made.vectors.dimension,
                made.vectors.nbytes,
                made.seconds / len(pool),
                made.vectors,
                gram,
                assigned,
                made.contract,
            )
        )
    return lines


def judge(gram: Floats, labels: Ints, assigned: Ints, resamples: int, seed: int) -> Figures:
    """All measures of one geometry; the clusters are fitted once, to the whole pool."""
    plain, shifted = measures.distances(gram), measures.distances(measures.centred(gram))

    def figure(of: partial[float]) -> Figure:
        low, high = interval(lambda weights: of(weights=weights), labels, resamples, seed)
        return Figure(of(), low, high)

    return Figures(
        figure(partial(measures.silhouette, plain, labels)),
        figure(partial(measures.silhouette, shifted, labels)),
        figure(partial(measures.nearest_accuracy, plain, labels)),
        figure(partial(measures.adjusted_rand, labels, assigned)),
        clusters=int(assigned.max()) + 1,
        noise=int((assigned < 0).sum()),
    )
