"""The labels of a pool: a CSV file with a model and its label in every line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import InvalidLabels

HEADERS = frozenset({"model", "repo", "repo_id", "folder", "name"})


@dataclass(frozen=True)
class Labelled:
    """One line: a repo id or a folder, and what it is. `line` counts from 1."""

    model: str
    label: str
    line: int


def read_labels(path: Path) -> list[Labelled]:
    """The lines of a file `model,label`, with or without a header, in order; empty lines are left out.

    Raises `InvalidLabels`, which names the line, where one has not two filled columns or repeats a model.
    """
    found: dict[str, Labelled] = {}
    for line, cells in _lines(path):
        if not any(cells) or (not found and cells[0].lower() in HEADERS):
            continue
        if len(cells) != 2:
            raise InvalidLabels(f"Line {line} of {path.name} has {len(cells)} columns; write MODEL,LABEL.")
        model, label = cells
        if not model or not label:
            raise InvalidLabels(f"Line {line} of {path.name} has no {'label' if model else 'model'}.")
        if model in found:
            raise InvalidLabels(f"Line {line} of {path.name} repeats {model}, which line {found[model].line} has.")
        found[model] = Labelled(model, label, line)
    if not found:
        raise InvalidLabels(f"{path.name} names no models; write MODEL,LABEL in each line.")
    return list(found.values())


def check_groups(labelled: list[Labelled]) -> None:
    """Raises `InvalidLabels` where nothing can be told apart: fewer than two labels, or a label with one model."""
    counts = Counter(each.label for each in labelled)
    if len(counts) < 2:
        raise InvalidLabels(f"All models are labelled {next(iter(counts))}; there must be two labels at least.")
    if alone := next((each for each in labelled if counts[each.label] == 1), None):
        raise InvalidLabels(
            f"{alone.label}, in line {alone.line}, has one model; each label needs two, to have a nearest of its own."
        )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                yield reader.line_num, [cell.strip() for cell in cells]
    except OSError as error:
        raise InvalidLabels(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InvalidLabels(f"{path.name} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except csv.Error as error:
        raise InvalidLabels(f"Line {reader.line_num} of {path.name} is not CSV: {error}.") from error
