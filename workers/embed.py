"""Computes vectors of local folders without a server: `python -m workers.embed`, or `deltadex embed`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from catalog.errors import CatalogError, InvalidInput
from catalog.spaces.probes import load_probes
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.content import content_sha
from workers.finetunes.reading import FineTune, read_finetune

console = Console(stderr=True)
app = typer.Typer(add_completion=False)


@app.command()
def embed(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of fine-tunes, one vector each.")],
    base: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the base model.")],
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Output file.")],
    probes: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Probe set. Default: the shipped one.")
    ] = None,
    feature: Annotated[str, typer.Option(help="Delta-X feature to measure.")] = "delta_activations",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    layer: Annotated[str, typer.Option(help="Index into hidden_states, or a fraction such as 0.5.")] = "-1",
    batch: Annotated[int, typer.Option(min=1, help="Adapters in one forward pass.")] = 8,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as one line of JSON.")] = False,
) -> None:
    """Embed folders of fine-tunes into an .npz with `names`, `vectors` (n, d) in float32, and `space` as JSON."""
    try:
        started = time.monotonic()
        resident = ResidentBase.load(base, base.resolve().name, content_sha(base), dtype=dtype, device=device)
        encoder = Encoder(resident, load_probes(probes), [feature], layer=parse_layer(layer))
        vectors = np.stack([encoding.vectors[feature] for encoding in encode_all(encoder, folders, batch)])
        names = [folder.resolve().name for folder in folders]
        space = encoder.space(feature).as_dict()
        with out.open("wb") as stream:  # given a name instead of a stream, numpy would append .npz
            np.savez(stream, names=np.array(names), vectors=vectors, space=np.array(json.dumps(space)))
    except CatalogError as error:
        fail(error, as_json)
    except OSError as error:
        fail(InvalidInput(f"{out} cannot be written: {error.strerror or error}."), as_json)
    seconds = round(time.monotonic() - started, 3)
    if as_json:
        norms = np.linalg.norm(vectors, axis=1).tolist()
        summary = {"out": str(out), "names": names, "norms": norms, "space": space, "seconds": seconds}
        typer.echo(json.dumps(summary))
    else:
        console.print(f"Wrote {len(names)} vectors of {vectors.shape[1]} dimensions to {out} in {seconds} s")


def encode_all(encoder: Encoder, folders: Sequence[Path], batch: int) -> Iterator[Encoding]:
    """The encodings of all folders in order; raises the first error, prefixed with the folder's name."""
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("embedding", total=len(folders))
        for start in range(0, len(folders), batch):
            finetunes = [read(folder) for folder in folders[start : start + batch]]
            for finetune, result in zip(finetunes, encoder.encode(finetunes), strict=True):
                if isinstance(result, CatalogError):
                    raise with_name(result, finetune.name)
                yield result
            progress.advance(task, len(finetunes))


def read(folder: Path) -> FineTune:
    try:
        return read_finetune(folder)
    except CatalogError as error:
        raise with_name(error, folder.name) from error


def with_name(error: CatalogError, name: str) -> CatalogError:
    """The same error with the folder's name in front of its message."""
    return type(error)(f"{name}: {error}")


def parse_layer(text: str) -> int | float:
    """Parse an index (`-1`, `12`) or a fraction (`0.5`). Raises `InvalidInput`."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is not a layer. Give an index such as -1, or a fraction such as 0.5.") from None


def fail(error: CatalogError, as_json: bool) -> None:
    """Print the code and message of an error, and exit with status 1."""
    if as_json:
        typer.echo(json.dumps({"code": error.code, "message": str(error)}))
    else:
        console.print(f"[red]{error.code}[/red]: {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
