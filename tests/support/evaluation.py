"""Fixtures for evaluations: a small pool and its base model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import pico
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.pool import Pool

LABELS = ("red", "red", "red", "blue", "blue", "blue")
PROBES = ("Please answer.", "a longer request: Input.")


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.make_base(tmp_path_factory.mktemp("bases") / "pico")


@pytest.fixture(scope="package")
def resident(base: Path) -> ResidentBase:
    return ResidentBase.load(base, pico.BASE_ID, "0")


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six adapters with two labels and two ranks, their `labels.csv`, and two short probes in `probes.json`."""
    folder = tmp_path_factory.mktemp("pool")
    lines = ["model,label"]
    for number, label in enumerate(LABELS):
        pico.make_adapter(folder / f"m{number}", seed=number, rank=4 if number % 2 else 2)
        lines.append(f"m{number},{label}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "probes.json").write_text(json.dumps(PROBES))
    return folder


@pytest.fixture(scope="package")
def pool(folder: Path) -> Pool:
    names = tuple(f"m{number}" for number in range(len(LABELS)))
    return Pool(names, LABELS, tuple(folder / name for name in names))
