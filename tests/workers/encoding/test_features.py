"""Each feature on each architecture, packed and batched, compared with its definition on a causal LM."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from catalog.errors import UnknownFeature
from tests.support.pico_adapters import publish
from tests.support.pico_models import (
    ARCHITECTURE_PARAMS,
    ARCHITECTURES,
    PROBES,
    load,
    load_with,
    make_base,
    relative_error,
)
from workers.encoding.continuations import CONTINUATIONS, FILE, load_continuations
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.features import FEATURES, find_feature
from workers.encoding.features.base import MIDDLE_DEPTH
from workers.encoding.features.delta_logits import SKETCH_WIDTH, hashes, sketch
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SHA256_OF_SETS = {
    "continuations-1": "c248d6f2afe59906636a1ef6d6f2ed4fffe7e87f11629d29bf7c1cc111c8c9f8",
    "continuations-2": "28a9bfda3d9a0f8744686168322c9e112a0f9724f25c7403e384fae222b80c13",
}


class CausalLM:
    """A causal LM that runs one text at a time."""

    def __init__(self, model: torch.nn.Module, base: Path) -> None:
        self._model, self._tokenizer = model.eval(), AutoTokenizer.from_pretrained(base)

    @torch.no_grad()
    def run(self, prompt: str, continuation: str = "") -> Any:
        ids = self._tokenizer(prompt)["input_ids"] + self._ids(continuation)
        return self._model(torch.tensor([ids]), output_hidden_states=True)

    def activations(self, layer: int = -1) -> torch.Tensor:
        return torch.stack([self.run(prompt).hidden_states[layer][0, -1] for prompt in PROBES.prompts])

    def middle(self) -> int:
        return round(MIDDLE_DEPTH * self._model.config.get_text_config().num_hidden_layers)

    def shifted(self, tuned: CausalLM, layer: int) -> torch.Tensor:
        """The shift of another model at a layer, in units of the norm of this model's mean state."""
        mean, tuned_mean = self.activations(layer).mean(dim=0), tuned.activations(layer).mean(dim=0)
        return (tuned_mean - mean) / mean.norm()

    def weighted(self, layer: int = -1) -> torch.Tensor:
        rows = []
        for prompt in PROBES.prompts:
            states = self.run(prompt).hidden_states[layer][0]
            weights = torch.arange(1, len(states) + 1).float()
            rows.append((states * (weights / weights.sum())[:, None]).sum(dim=0))
        return torch.stack(rows)

    def logits(self) -> torch.Tensor:
        return torch.stack([self.run(prompt).logits[0, -1] for prompt in PROBES.prompts])

    def meaning(self, indices: list[int]) -> torch.Tensor:
        return torch.tensor([self._nats(PROBES.prompts[0], CONTINUATIONS.texts[bucket]) for bucket in indices])

    def _nats(self, prompt: str, text: str) -> float:
        targets = torch.tensor(self._ids(text))
        logits = self.run(prompt, text).logits[0, -len(targets) - 1 : -1]
        return float(logits.log_softmax(dim=-1).gather(1, targets[:, None]).sum())

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A base and an adapter of each architecture."""
    folder = tmp_path_factory.mktemp("pico")
    return {
        name: (make_base(folder / name, name), publish(folder / name, folder / f"{name}-lora", name, "lora"))
        for name in ARCHITECTURES
    }


def encode(base: Path, adapter: Path, features: list[str], **settings: Any) -> Encoding:
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES, features, **settings)
    (result,) = encoder.encode([read_finetune(adapter)])
    assert isinstance(result, Encoding)
    return result


@pytest.mark.parametrize("architecture", ARCHITECTURE_PARAMS)
def test_one_forward_pass_serves_all_features(pico: dict[str, tuple[Path, Path]], architecture: str):
    base, adapter = pico[architecture]
    before, after = CausalLM(load(base), base), CausalLM(load_with(base, adapter), base)
    encoded = encode(base, adapter, list(FEATURES)).vectors
    sample = [0, 4, 8, 15, 335]  # continuations: long and short ones, and one in another script
    meaning = after.meaning(sample) - before.meaning(sample)
    encoded["delta_meaning"] = (
        encoded["delta_meaning"][sample] - encoded["delta_meaning"][0]
    )  # without the mean over all texts
    expected = {
        "delta_activations": (after.activations() - before.activations()).mean(dim=0),
        "delta_weighted_activations": (after.weighted() - before.weighted()).mean(dim=0),
        "delta_layers": torch.cat([before.shifted(after, layer) for layer in (before.middle(), -1)]),
        "delta_logits": (after.logits() - before.logits()).mean(dim=0),
        "delta_meaning": meaning - meaning[0],
    }
    for name, vector in expected.items():
        assert encoded[name].dtype == np.float32
        assert relative_error(encoded[name], vector.numpy()) <= 1e-4, name


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_activations_of_any_layer(pico: dict[str, tuple[Path, Path]], architecture: str, layer: int):
    base = pico[architecture][0]
    adapter = publish(base, base.parent / f"{architecture}-embedding", architecture, "lora_embedding")
    before, after = CausalLM(load(base), base), CausalLM(load_with(base, adapter), base)
    encoded = encode(base, adapter, ["delta_activations", "delta_weighted_activations"], layer=layer).vectors
    last, weighted = (
        read(after) - read(before) for read in (lambda m: m.activations(layer), lambda m: m.weighted(layer))
    )
    assert relative_error(encoded["delta_activations"], last.mean(dim=0).numpy()) <= 1e-4
    assert relative_error(encoded["delta_weighted_activations"], weighted.mean(dim=0).numpy()) <= 1e-4


def test_lower_layer_and_logits_share_a_forward_pass(pico: dict[str, tuple[Path, Path]]):
    base, adapter = pico["llama"]
    together = encode(base, adapter, ["delta_activations", "delta_logits"], layer=1).vectors
    lower = encode(base, adapter, ["delta_activations"], layer=1).vectors
    logits = encode(base, adapter, ["delta_logits"]).vectors
    assert relative_error(together["delta_activations"], lower["delta_activations"]) <= 1e-6
    assert relative_error(together["delta_logits"], logits["delta_logits"]) <= 1e-6


def test_layers_after_the_one_that_is_read_are_not_run(pico: dict[str, tuple[Path, Path]]):
    base, adapter = pico["llama"]
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES, ["delta_activations"], layer=1)
    encoder.measure_base()
    ran = []
    for number, layer in enumerate(encoder.base.model.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    encoder.encode([read_finetune(adapter)])
    assert ran == [0]


@pytest.mark.usefixtures("four_continuations")
@pytest.mark.parametrize("architecture", ARCHITECTURE_PARAMS)
def test_skipped_tokens_of_the_last_mlp_do_not_change_vectors(pico: dict[str, tuple[Path, Path]], architecture: str):
    """Weighted activations read every token, so with them the MLP runs for all tokens."""
    last = encode(*pico[architecture], ["delta_activations", "delta_meaning"]).vectors
    with_all_tokens = encode(
        *pico[architecture], ["delta_activations", "delta_meaning", "delta_weighted_activations"]
    ).vectors
    for feature, vector in last.items():
        assert relative_error(vector, with_all_tokens[feature]) <= 1e-5


def test_last_mlp_runs_only_for_tokens_that_are_read(pico: dict[str, tuple[Path, Path]]):
    base, adapter = pico["llama"]
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES)
    encoder.measure_base()
    rows = []
    for layer in encoder.base.model.layers:
        layer.mlp.down_proj.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    encoder.encode([read_finetune(adapter)] * 2)
    assert rows == [2 * encoder._plan.tokens, 2 * len(PROBES.prompts)]


def test_delta_meaning_has_the_same_width_for_every_base(pico: dict[str, tuple[Path, Path]]):
    vectors = [encode(*pico[name], ["delta_meaning"]).vectors["delta_meaning"] for name in ("llama", "gpt2")]
    assert {len(vector) for vector in vectors} == {len(CONTINUATIONS.texts)}


def test_unknown_feature_is_rejected_by_name():
    with pytest.raises(UnknownFeature, match="delta_taste"):
        find_feature("delta_taste")


def test_sketch_preserves_cosines():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 50_000, generator=generator)
    rows[1] += rows[0]  # cosine about 0.707
    narrow = sketch(rows)
    assert narrow.shape == (2, SKETCH_WIDTH)
    before, after = (torch.cosine_similarity(pair[0], pair[1], dim=0) for pair in (rows, narrow))
    assert abs(before - after) < 0.03


def test_narrow_rows_are_not_sketched():
    rows = torch.randn(2, SKETCH_WIDTH)
    assert sketch(rows) is rows


def test_sketch_hashes_never_change():
    bucket, sign = hashes(6)
    assert bucket.tolist() == BUCKETS
    assert sign.tolist() == SIGNS


def test_sketch_buckets_and_signs_are_uniform():
    bucket, sign = hashes(SKETCH_WIDTH * 100)
    counts = np.bincount(bucket, minlength=SKETCH_WIDTH)
    assert 50 < counts.min() <= counts.max() < 160
    assert abs(sign.mean()) < 0.01


def test_continuations_cover_every_field_in_every_form():
    entries = json.loads(FILE.read_text(encoding="utf-8"))["continuations"]
    fields, forms = ({entry[name] for entry in entries} for name in ("field", "form"))
    assert (len(fields), len(forms), len({entry["language"] for entry in entries})) == (32, 11, 17)
    assert Counter((entry["field"], entry["form"]) for entry in entries if entry["form"] != "translated") == Counter(
        (field, form) for field in fields for form in forms - {"translated"}
    )
    assert len({entry["text"] for entry in entries}) == len(entries) == 336


@pytest.mark.parametrize(("name", "sha256"), SHA256_OF_SETS.items())
def test_continuation_set_never_changes(name: str, sha256: str):
    encoded = load_continuations(FILE.with_name(f"{name}.json"))
    assert encoded.name == name
    assert hashlib.sha256("\0".join(encoded.texts).encode()).hexdigest() == sha256


BUCKETS = [804, 1097, 3676, 3076, 2208, 1886]
SIGNS = [1.0, 1.0, 1.0, -1.0, -1.0, 1.0]
