"""Every model type that transformers registers for causal language models, tiny: measured right, or refused by name.

Expected vectors come from a separate process that imports nothing of the product, and works ahead of the tests, in
their order (`tests/support/reference_forward.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import CatalogError, Refused
from tests.support.architectures import (
    CAUSAL,
    HYBRIDS,
    KINDS_OF_HYBRIDS,
    MEASURED,
    NOT_MADE,
    PEFT_KINDS,
    REFUSED,
    REFUSED_KINDS,
)
from tests.support.pico_models import PROBES, relative_error
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

ROOT = Path(__file__).parents[3]
FEATURES = {"delta_activations": "{}", "delta_layers": "{}_layers"}  # with their names in `expected.npz`
TOLERANCE = 1e-4

# PEFT and transformers warn about some types
pytestmark = [pytest.mark.exhaustive, pytest.mark.filterwarnings("ignore")]


class References:
    """The folders and vectors of the reference, which a separate process makes, in the order of `names`."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        prompts = folder / "prompts.json"
        prompts.write_text(json.dumps(PROBES.prompts))
        command = [sys.executable, "-m", "tests.support.reference_forward", str(folder), str(prompts), *names]
        self.folder = folder
        self._log = (folder / "errors.txt").open("w+")
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._reasons: dict[str, dict[str, str]] = {}

    def reasons(self, model_type: str) -> dict[str, str]:
        """Why parts of a type could not be made, by name. Waits until the type is finished."""
        assert self._process.stdout is not None
        while model_type not in self._reasons:
            line = self._process.stdout.readline()
            assert line, self._errors()
            outcome = json.loads(line)
            self._reasons[outcome["type"]] = outcome["reasons"]
        return self._reasons[model_type]

    @cache  # noqa: B019  (one instance, as long as the tests run)
    def encoder(self, model_type: str) -> Encoder:
        assert "base" not in self.reasons(model_type)
        base = ResidentBase.load(self.folder / model_type / "base", f"pico/{model_type}", "0")
        return Encoder(base, PROBES, tuple(FEATURES), prove_kinds=True)

    def encode(self, model_type: str, *names: str) -> list[Encoding | CatalogError]:
        return self.encoder(model_type).encode([read_finetune(self.folder / model_type / name) for name in names])

    def expected(self, model_type: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / model_type / "expected.npz") as tables:
            return dict(tables)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _errors(self) -> str:
        self._log.seek(0)
        return self._log.read()


@pytest.fixture(scope="module")
def references(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[References]:
    types = {
        item.callspec.params["model_type"]: None
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    }
    names = [f"{model_type}:{','.join(PEFT_KINDS)}" if model_type in HYBRIDS else model_type for model_type in types]
    running = References(tmp_path_factory.mktemp("architectures"), names)
    yield running
    running.close()


def check(result: Encoding | CatalogError, expected: dict[str, np.ndarray], name: str) -> None:
    assert isinstance(result, Encoding), result
    assert np.linalg.norm(expected[name]) > 0.05
    for feature, key in FEATURES.items():
        assert relative_error(result.vectors[feature], expected[key.format(name)]) <= TOLERANCE, feature


@pytest.mark.parametrize("model_type", MEASURED)
def test_lora_matches_peft_alone_and_in_a_batch(references: References, model_type: str):
    assert references.reasons(model_type).keys() <= set(PEFT_KINDS)
    expected = references.expected(model_type)
    check(references.encode(model_type, "lora")[0], expected, "lora")
    first, second = references.encode(model_type, "other", "lora")
    check(first, expected, "other")
    check(second, expected, "lora")


@pytest.mark.parametrize("model_type", MEASURED)
def test_full_fine_tune_matches_its_own_forward_pass(references: References, model_type: str):
    assert references.reasons(model_type).keys() <= set(PEFT_KINDS)
    check(references.encode(model_type, "full")[0], references.expected(model_type), "full")


@pytest.mark.parametrize("model_type", REFUSED)
def test_models_that_are_not_causal_are_refused_by_name(references: References, model_type: str):
    assert "base" not in references.reasons(model_type)
    with pytest.raises(Refused, match=REFUSED[model_type]):
        references.encoder(model_type)


@pytest.mark.parametrize(("model_type", "kind"), [case for case in KINDS_OF_HYBRIDS if case not in REFUSED_KINDS])
def test_kinds_of_adapters_match_peft(references: References, model_type: str, kind: str):
    assert kind not in references.reasons(model_type)
    check(references.encode(model_type, kind)[0], references.expected(model_type), kind)


@pytest.mark.parametrize(("model_type", "kind"), REFUSED_KINDS)
def test_kinds_that_peft_cannot_run_are_refused(references: References, model_type: str, kind: str):
    assert kind in references.reasons(model_type)
    [result] = references.encode(model_type, kind)
    assert isinstance(result, Refused)


@pytest.mark.parametrize("model_type", NOT_MADE)
def test_types_that_are_left_out_cannot_be_made(references: References, model_type: str):
    assert "base" in references.reasons(model_type)


def test_every_registered_type_is_tested():
    assert set(CAUSAL) <= {*MEASURED, *REFUSED, *NOT_MADE}
