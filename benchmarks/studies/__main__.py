"""Run a study of a labeled pool without a server: `python -m benchmarks.studies STUDY LABELS.csv --out DIR`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmarks.studies.additivity import check_mixtures, study_additivity
from benchmarks.studies.probe_sets import generic_probes
from benchmarks.studies.probes import study_probes
from benchmarks.studies.settings import FRACTIONS, study_dtypes, study_kinds, study_layers
from benchmarks.studies.study import Study
from catalog.errors import InvalidInput
from catalog.spaces.probes import load_probes
from workers.embed import parse_layer
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.evaluation import options, report
from workers.evaluation.labels import check_labels
from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations.delta import encode

app = typer.Typer(add_completion=False)


class StudyName(StrEnum):
    PROBES = "probes"
    KINDS = "kinds"
    LAYERS = "layers"
    DTYPE = "dtype"
    ADDITIVITY = "additivity"


@dataclass(frozen=True)
class Inputs:
    """The pool and the options of the command line. Each study uses those that apply to it."""

    pool: Pool
    load: Callable[[str], ResidentBase]  # by dtype
    probes: Path | None
    feature: str
    layers: Sequence[str]
    dtypes: Sequence[str]
    batch: int
    progress: Progress

    def base(self) -> ResidentBase:
        """The base in the only dtype of a study. Raises `InvalidInput` if several were given."""
        if len(self.dtypes) > 1:
            raise InvalidInput("Give one --dtype; only the dtype study compares several.")
        return self.load(self.dtypes[0] if self.dtypes else "float32")


def _probes(inputs: Inputs) -> Study:
    probes = load_probes(inputs.probes) if inputs.probes else generic_probes()
    return study_probes(inputs.pool, inputs.base(), probes, inputs.feature, inputs.batch, inputs.progress)


def _kinds(inputs: Inputs) -> Study:
    return study_kinds(inputs.pool, inputs.base(), inputs.feature, inputs.batch, inputs.progress)


def _layers(inputs: Inputs) -> Study:
    layers = [parse_layer(text) for text in inputs.layers] or FRACTIONS
    probes = load_probes(inputs.probes)
    return study_layers(inputs.pool, inputs.base(), probes, inputs.feature, layers, inputs.batch, inputs.progress)


def _dtype(inputs: Inputs) -> Study:
    dtypes = inputs.dtypes or ("bfloat16", "float16")
    probes = load_probes(inputs.probes)
    return study_dtypes(inputs.pool, inputs.load, probes, inputs.feature, dtypes, inputs.batch, inputs.progress)


def _additivity(inputs: Inputs) -> Study:
    encoder = Encoder(inputs.base(), load_probes(inputs.probes), [inputs.feature])
    vectors = encode(inputs.pool, encoder, inputs.feature, inputs.batch, inputs.progress)
    return study_additivity(inputs.pool, vectors, inputs.feature)


STUDIES: dict[StudyName, Callable[[Inputs], Study]] = {
    StudyName.PROBES: _probes,
    StudyName.KINDS: _kinds,
    StudyName.LAYERS: _layers,
    StudyName.DTYPE: _dtype,
    StudyName.ADDITIVITY: _additivity,
}


@app.command()
def study(
    name: Annotated[StudyName, typer.Argument(metavar="STUDY", help="One of: " + ", ".join(StudyName) + ".")],
    labels: options.Labels,
    out_dir: options.Out,
    base: options.Base = None,
    probes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Probe set. Default: the shipped one; for `probes`, twenty generic requests."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="For `layers`: an index into hidden_states or a fraction; repeatable. Default: ten layers."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Dtype of the base. Default: float32. For `dtype`: repeatable; default: bfloat16, float16."),
    ] = None,
    feature: options.Feature = "delta_activations",
    device: options.Device = "cpu",
    batch: options.Batch = 8,
    as_json: options.AsJson = False,
) -> None:
    """Measure how the vectors of a labeled pool depend on one setting. Writes a table, a JSON file and a plot.

    probes: the number of probes, from one to all of a set.
    kinds: the kind of probe: generic requests, requests from domains, plain text, single words.
    layers: the layer.
    dtype: the dtype of the base, and the cosines to the vectors in float32.
    additivity: whether the vector of a mixture (label FIRST+SECOND) is the sum of the vectors of its parts.
    """
    with options.report_errors(as_json):
        report.make_folder(out_dir)
        with options.progress_bar() as progress:
            check = check_mixtures if name == StudyName.ADDITIVITY else check_labels
            pool = options.read_pool(labels, progress, check)

            def load(base_dtype: str) -> ResidentBase:
                return options.load_resident_base(pool, base, base_dtype, device)

            inputs = Inputs(pool, load, probes, feature, layer or (), dtype or (), batch, progress)
            result = STUDIES[name](inputs)
        result.write(out_dir)
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
        return
    options.out.print(result.table())
    options.out.print(f"\n{result.name}.csv, .json and .png are in {escape(str(out_dir))}")


if __name__ == "__main__":
    app()
