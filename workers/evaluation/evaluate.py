"""The scorecard of a labelled pool, with no server: `python -m workers.evaluation.evaluate`, or `deltadex evaluate`."""

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
from workers.evaluation.representations import REPRESENTATIONS, Setting, find_representation
from workers.evaluation.scorecard import Line, score

app = typer.Typer(add_completion=False)

SMALLEST = 3  # models of a cluster


@app.command()
def evaluate(
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    probes: options.Probes = None,
    only: Annotated[list[str] | None, typer.Option(help="One representation; repeat it for more. All without.")] = None,
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    mask_share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of the changed weights in a salient mask.")
    ] = 0.01,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Length of the answers that are embedded.")] = 32,
    min_cluster: Annotated[int, typer.Option(min=2, help="Size of the smallest cluster.")] = SMALLEST,
    resamples: Annotated[int, typer.Option(min=10, help="Resamples of the bootstrap.")] = RESAMPLES,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure how well each representation tells the labels of a pool apart: a table, files and plots."""
    with options.errors_told(as_json):
        chosen = [find_representation(name) for name in only or REPRESENTATIONS]
        report.make_folder(out_dir)
        with options.progress() as tell:
            pool = options.read_pool(labels, tell)
            resident = options.read_base(pool, base, dtype, device)
            setting = Setting(
                resident, BaseGuard(resident.model), load_probes(probes), batch, mask_share, answer_tokens
            )
            lines = score(pool, chosen, setting, smallest=min_cluster, resamples=resamples, seed=seed, tell=tell)
            how = {
                "base": {"repo": resident.repo, "sha": resident.sha, "dtype": dtype},
                "probe_set": {"name": setting.probes.name, "sha256": setting.probes.sha256},
                "bootstrap": {"resamples": resamples, "seed": seed, "coverage": COVERAGE},
                "smallest_cluster": min_cluster,
            }
            report.write_scorecard(out_dir, pool, lines, how)
            for number, line in enumerate(lines):
                tell("drawing", number, len(lines))
                if line.gram is not None:
                    plots.plot_representation(out_dir / "plots" / f"{line.name}.png", line.name, pool, line.gram)
    if as_json:
        typer.echo(json.dumps(json.loads((out_dir / "scorecard.json").read_text(encoding="utf-8"))))
    else:
        show(lines, pool, out_dir)
    if all(line.figures is None for line in lines):
        raise typer.Exit(1)


def show(lines: Sequence[Line], pool: Pool, folder: Path) -> None:
    """The tables, and why a line is empty."""
    out.print(report.scorecard_table(lines))
    for note in report.missing_notes(lines):
        out.print(escape(note), soft_wrap=True)
    out.print()
    out.print(report.published_table())
    out.print(f"\n{len(pool)} models, {len(pool.groups)} labels; everything is in {escape(str(folder))}")


if __name__ == "__main__":
    app()
