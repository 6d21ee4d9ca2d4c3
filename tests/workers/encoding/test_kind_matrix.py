"""Architectures x kinds: every vector is compared with PEFT's forward pass of the same adapter on a fresh base.

All kinds of an architecture share one encoder, so a change that one adapter leaves in the base would affect the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.pico_adapters import KINDS, NO_CONV1D, publish
from tests.support.pico_models import (
    ARCHITECTURES,
    PROBES,
    add_noise,
    last_hidden,
    load,
    load_with,
    make_base,
    relative_error,
)
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import FineTune, read_finetune

FEATURE = "delta_activations"
TOLERANCE = 1e-4
EVERYWHERE = ("lora", "dora", "modules_to_save", "larger_vocabulary", "ia3", "ln_tuning", "vera", "prefix_tuning")

# PEFT warns when an adapter is created
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]


@dataclass(frozen=True)
class Pico:
    """A base on disk and in an encoder, and its hidden states by the whole causal LM, (N, H)."""

    architecture: str
    folder: Path
    encoder: Encoder
    hidden: torch.Tensor

    def expected(self, tuned: torch.nn.Module) -> np.ndarray:
        return (last_hidden(tuned, self.folder) - self.hidden).mean(dim=0).numpy()

    def vector(self, finetune: FineTune) -> np.ndarray:
        result = self.encoder.encode([finetune])[0]
        if isinstance(result, Exception):
            raise result
        return result.vectors[FEATURE]


class Picos:
    """One base of each architecture, created at the first access."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Pico] = {}

    def __getitem__(self, architecture: str) -> Pico:
        if architecture not in self._made:
            base = make_base(self._folder / architecture, architecture)
            resident = ResidentBase.load(base, f"pico/{architecture}", "0")
            self._made[architecture] = Pico(
                architecture, base, Encoder(resident, PROBES), last_hidden(load(base), base)
            )
        return self._made[architecture]


@pytest.fixture(scope="session")
def picos(tmp_path_factory: pytest.TempPathFactory) -> Picos:
    return Picos(tmp_path_factory.mktemp("picos"))


def check(pico: Pico, kind: str, folder: Path) -> None:
    adapter = publish(pico.folder, folder / kind, pico.architecture, kind)
    expected = pico.expected(load_with(pico.folder, adapter, KINDS[kind].prepare))
    assert np.linalg.norm(expected) > 0.05
    assert relative_error(pico.vector(read_finetune(adapter)), expected) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_matches_peft(picos: Picos, kind: str, tmp_path: Path):
    check(picos["llama"], kind, tmp_path)


@pytest.mark.parametrize("kind", EVERYWHERE)
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "llama"])
def test_every_architecture_matches_peft(picos: Picos, architecture: str, kind: str, tmp_path: Path):
    check(picos[architecture], kind, tmp_path)


@pytest.mark.parametrize(
    "kind", sorted({"trained_biases", "lora_embedding", "lora_bias", "trained_tokens", "prompt_tuning"})
)
@pytest.mark.parametrize("architecture", ["gpt2", "gemma3", "qwen2"])
def test_kinds_that_depend_on_the_architecture_match_peft(picos: Picos, architecture: str, kind: str, tmp_path: Path):
    check(picos[architecture], kind, tmp_path)


@pytest.mark.parametrize("kind", ["loha", "lokr", "oft", "boft", "adalora", "fourierft"])
@pytest.mark.parametrize("architecture", ["phi3", "mixtral"])
def test_fused_projections_and_experts_match_peft(picos: Picos, architecture: str, kind: str, tmp_path: Path):
    check(picos[architecture], kind, tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_fine_tune_matches_its_own_forward_pass(picos: Picos, architecture: str, tmp_path: Path):
    pico = picos[architecture]
    tuned = load(pico.folder)
    add_noise(tuned, seed=7, scale=0.05)
    tuned.save_pretrained(tmp_path)
    vector = pico.vector(read_finetune(tmp_path))
    assert relative_error(vector, pico.expected(load(tmp_path))) <= TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_last_hidden_state_is_the_one_after_the_final_norm(picos: Picos, architecture: str):
    pico = picos[architecture]
    model = load(pico.folder).eval()
    captured = {}
    final = (".norm", "ln_f", "final_layer_norm")
    norm = next(module for name, module in model.named_modules() if name.endswith(final))
    norm.register_forward_hook(lambda module, args, output: captured.update(output=output))
    with torch.no_grad():
        output = model(torch.tensor([[5, 6, 7]]), output_hidden_states=True)
    assert torch.equal(output.hidden_states[-1], captured["output"])


def test_kinds_missing_for_conv1d_are_unsupported_by_peft(picos: Picos, tmp_path: Path):
    for kind in NO_CONV1D:
        with pytest.raises((TypeError, ValueError), match="not supported"):
            publish(picos["gpt2"].folder, tmp_path / kind, "gpt2", kind)
