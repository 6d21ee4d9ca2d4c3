from __future__ import annotations

from pathlib import Path

import pytest

from catalog.tasks.examples import Example
from tests.support.pico import make_adapter
from tests.support.task_encoder import (
    encoder,  # noqa: F401  (fixtures)
    examples,  # noqa: F401  (fixtures)
)
from workers.encoding.encoder import Encoder
from workers.finetunes.reading import read_finetune
from workers.selections.weights import Adapter, fit_adapter
from workers.tasks.scoring import Scorer


@pytest.fixture
def adapters(
    encoder: Encoder,  # noqa: F811
    tmp_path: Path,
) -> list[Adapter]:
    """Three adapters of different ranks."""
    folders = [make_adapter(tmp_path / str(number), seed=number, rank=2 + number) for number in range(3)]
    return [fit_adapter(folder.name, read_finetune(folder), encoder.base) for folder in folders]


@pytest.fixture
def scorer(
    encoder: Encoder,  # noqa: F811
    examples: list[Example],  # noqa: F811
) -> Scorer:
    return Scorer(encoder, examples, 300)
