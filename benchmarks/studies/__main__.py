"""Studies of a labeled pool, with no server: `python -m benchmarks.studies`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmarks.studies.additivity import check_mixtures, study_additivity
from benchmarks.studies.probe_sets import generic_probes
from benchmarks.studies.probes import study_probes
from benchmarks.studies.settings import FRACTIONS, study_dtype, study_kinds, study_layers
from benchmarks.studies.study import Study
from catalog.spaces.probes import load_probes
from workers.embed import parse_layer
from workers.encoding.encoder import Encoder
from workers.evaluation import options, report
from workers.evaluation.representations.delta import encode

app = typer.Typer(add_completion=False, no_args_is_help=True, help="What the vectors of a labeled pool depend on.")

FEATURE = "delta_activations"


@app.command()
def probes(
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    probes: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The probes; twenty generic ones without.")
    ] = None,
    feature: options.Feature = FEATURE,
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    as_json: options.AsJson = False,
) -> None:
    """How many probes it takes, from one to all of a set."""
    with options.report_errors(as_json):
        report.make_folder(out_dir)
        chosen = load_probes(probes) if probes else generic_probes()
        with options.progress_bar() as progress:
            pool = options.read_pool(labels, progress)
            resident = options.load_resident_base(pool, base, dtype, device)
            study = study_probes(pool, resident, chosen, feature, batch, progress)
        finish(study, out_dir, as_json)


@app.command()
def kinds(
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    feature: options.Feature = FEATURE,
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    as_json: options.AsJson = False,
) -> None:
    """Which kind of probe: generic requests, requests of domains, plain text, single words."""
    with options.report_errors(as_json):
        report.make_folder(out_dir)
        with options.progress_bar() as progress:
            pool = options.read_pool(labels, progress)
            resident = options.load_resident_base(pool, base, dtype, device)
            study = study_kinds(pool, resident, feature, batch, progress)
        finish(study, out_dir, as_json)


@app.command()
def layers(
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    probes: options.Probes = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="An index into hidden_states or a fraction; repeat it for more.")
    ] = None,
    feature: options.Feature = FEATURE,
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    as_json: options.AsJson = False,
) -> None:
    """Which layer: ten of them, evenly, without --layer."""
    with options.report_errors(as_json):
        report.make_folder(out_dir)
        chosen = [parse_layer(text) for text in layer] if layer else FRACTIONS
        with options.progress_bar() as progress:
            pool = options.read_pool(labels, progress)
            resident = options.load_resident_base(pool, base, dtype, device)
            study = study_layers(pool, resident, load_probes(probes), feature, chosen, batch, progress)
        finish(study, out_dir, as_json)


@app.command()
def dtype(
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    probes: options.Probes = None,
    dtype: Annotated[list[str] | None, typer.Option(help="Beside float32; bfloat16 and float16 without.")] = None,
    feature: options.Feature = FEATURE,
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    as_json: options.AsJson = False,
) -> None:
    """Which dtype the base computes in, and how far the vectors move from float32's."""
    with options.report_errors(as_json):
        report.make_folder(out_dir)
        with options.progress_bar() as progress:
            pool = options.read_pool(labels, progress)
            load = partial(options.load_resident_base, pool, base, device=device)
            chosen = dtype or ["bfloat16", "float16"]
            study = study_dtype(pool, load, load_probes(probes), feature, chosen, batch, progress)
        finish(study, out_dir, as_json)


@app.command()
def additivity(
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    probes: options.Probes = None,
    feature: options.Feature = FEATURE,
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    as_json: options.AsJson = False,
) -> None:
    """Whether a mixture's vector is the sum of its parts'; a mixture's label is FIRST+SECOND."""
    with options.report_errors(as_json):
        report.make_folder(out_dir)
        with options.progress_bar() as progress:
            pool = options.read_pool(labels, progress, check_mixtures)
            resident = options.load_resident_base(pool, base, dtype, device)
            vectors = encode(pool, Encoder(resident, load_probes(probes), [feature]), feature, batch, progress)
            study = study_additivity(pool, vectors, feature)
        finish(study, out_dir, as_json)


def finish(study: Study, folder: Path, as_json: bool) -> None:
    """Files, and the table on standard output."""
    study.write(folder)
    if as_json:
        typer.echo(json.dumps({**study.settings, "rows": list(study.rows)}))
        return
    options.out.print(study.table())
    options.out.print(f"\n{study.name}.csv, .json and .png are in {escape(str(folder))}")


if __name__ == "__main__":
    app()
