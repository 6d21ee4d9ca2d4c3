"""The labels of a pool: a CSV file with one `model,label` pair per line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import InvalidLabels

HEADERS = frozenset({"model", "repo", "repo_id", "folder", "name"})


@dataclass(frozen=True)
class LabeledModel:
    """A model (a repo id or a folder), its label, and its line in the file, counted from 1."""

    model: str
    label: str
    line: int


def read_labels(path: Path) -> list[LabeledModel]:
    """Read a file of `model,label` lines, in order. A header is optional, and empty lines are skipped.

    Raises `InvalidLabels`, with the line number, for a line without two non-empty columns or with a repeated model.
    """
    models: dict[str, LabeledModel] = {}
    for line, cells in _read_lines(path):
        if not any(cells) or (not models and cells[0].lower() in HEADERS):
            continue
        if len(cells) != 2:
            raise InvalidLabels(f"Line {line} of {path.name} has {len(cells)} columns; write MODEL,LABEL.")
        model, label = cells
        if not model or not label:
            raise InvalidLabels(f"Line {line} of {path.name} has no {'label' if model else 'model'}.")
        if model in models:
            raise InvalidLabels(f"Line {line} of {path.name} repeats {model}, which line {models[model].line} has.")
        models[model] = LabeledModel(model, label, line)
    if not models:
        raise InvalidLabels(f"{path.name} names no models; write MODEL,LABEL in each line.")
    return list(models.values())


def check_labels(labeled: list[LabeledModel]) -> None:
    """Raise `InvalidLabels` for fewer than two labels, or for a label with only one model."""
    counts = Counter(model.label for model in labeled)
    if len(counts) < 2:
        raise InvalidLabels(f"All models are labeled {next(iter(counts))}; use at least two labels.")
    if single := next((model for model in labeled if counts[model.label] == 1), None):
        raise InvalidLabels(
            f"{single.label}, in line {single.line}, has one model; each label needs at least two models."
        )


def _read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
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
