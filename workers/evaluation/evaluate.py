"""Score a labeled pool without a server: `python -m workers.evaluation.evaluate`, or `deltadex evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from catalog.spaces.probes import load_probes
from workers.encoding.guard import BaseGuard
from workers.evaluation import options, plots, report
from workers.evaluation.bootstrap import COVERAGE, RESAMPLES
from workers.evaluation.options import out
from workers.evaluation.pool import Pool
from workers.evaluation.representations import REPRESENTATIONS, EvaluationContext, find_representation
from workers.evaluation.scorecard import Result, score

app = typer.Typer(add_completion=False)

MIN_CLUSTER_SIZE = 3  # models


@app.command()
def evaluate(
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    probes: options.Probes = None,
    only: Annotated[list[str] | None, typer.Option(help="A representation; repeatable. Default: all.")] = None,
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    mask_share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of the changed weights that a salient mask marks.")
    ] = 0.01,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of the answers that are embedded.")] = 32,
    min_cluster: Annotated[int, typer.Option(min=2, help="Size of the smallest cluster.")] = MIN_CLUSTER_SIZE,
    resamples: Annotated[int, typer.Option(min=10, help="Resamples of the bootstrap.")] = RESAMPLES,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure how well each representation separates the labels of a pool. Writes a table, files and plots."""
    with options.report_errors(as_json):
        representations = [find_representation(name) for name in only or REPRESENTATIONS]
        report.make_folder(out_dir)
        with options.progress_bar() as progress:
            pool = options.read_pool(labels, progress)
            resident = options.load_resident_base(pool, base, dtype, device)
            context = EvaluationContext(
                resident, BaseGuard(resident.model), load_probes(probes), batch, mask_share, answer_tokens
            )
            results = score(
                pool,
                representations,
                context,
                min_cluster_size=min_cluster,
                resamples=resamples,
                seed=seed,
                progress=progress,
            )
            settings = {
                "base": {"repo": resident.repo, "sha": resident.sha, "dtype": dtype},
                "probe_set": {"name": context.probes.name, "sha256": context.probes.sha256},
                "bootstrap": {"resamples": resamples, "seed": seed, "coverage": COVERAGE},
                "smallest_cluster": min_cluster,
            }
            report.write_scorecard(out_dir, pool, results, settings)
            for number, result in enumerate(results):
                progress("drawing", number, len(results))
                if result.gram is not None:
                    plots.plot_representation(out_dir / "plots" / f"{result.name}.png", result.name, pool, result.gram)
    if as_json:
        typer.echo(json.dumps(json.loads((out_dir / "scorecard.json").read_text(encoding="utf-8"))))
    else:
        print_scorecard(results, pool, out_dir)
    if all(result.metrics is None for result in results):
        raise typer.Exit(1)


def print_scorecard(results: Sequence[Result], pool: Pool, folder: Path) -> None:
    """Print the tables, and why a representation is missing."""
    out.print(report.scorecard_table(results))
    for note in report.missing_notes(results):
        out.print(escape(note), soft_wrap=True)
    out.print()
    out.print(report.published_table())
    out.print(f"\n{len(pool)} models, {len(pool.classes)} labels. The files are in {escape(str(folder))}")


if __name__ == "__main__":
    app()
