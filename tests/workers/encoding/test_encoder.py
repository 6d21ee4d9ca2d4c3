"""The encoder's contract: spaces, the base's own tables, the noise floor, explanations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.errors import InvalidInput, UnknownFeature, UnsupportedBase
from catalog.spaces.probes import ProbeSet
from tests.support import pico
from tests.support.pico import byte_tokenizer
from tests.support.pico_models import PROBES, load, load_with
from workers.encoding.continuations import CONTINUATIONS
from workers.encoding.encoder import ENCODER_VERSION, Encoder, Encoding, resolve_layer
from workers.encoding.features import FEATURES
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(folder: Path) -> ResidentBase:
    return ResidentBase.load(folder, "pico/llama", "abc")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.make_adapter(tmp_path_factory.mktemp("adapter"))


def encode(encoder: Encoder, adapter: Path) -> Encoding:
    (result,) = encoder.encode([read_finetune(adapter)])
    assert isinstance(result, Encoding)
    return result


def test_space_has_everything_that_a_vector_depends_on(base: ResidentBase):
    space = Encoder(base, PROBES, layer=1).space("delta_activations")
    assert (space.feature, space.layer, space.base_repo, space.base_sha) == (
        "delta_activations",
        1,
        "pico/llama",
        "abc",
    )
    assert (space.probe_set, space.dtype, space.encoder_version) == (PROBES.sha256, "float32", ENCODER_VERSION)


def test_logits_have_no_layer(base: ResidentBase):
    assert Encoder(base, PROBES, layer=1).space("delta_logits").layer == -1


def test_space_of_delta_meaning_has_no_base_and_names_its_continuations(base: ResidentBase):
    space = Encoder(base, PROBES).space("delta_meaning")
    assert (space.base_repo, space.base_sha) == (None, None)
    assert space.encoder_version == f"{ENCODER_VERSION}+{CONTINUATIONS.name}"


def test_tokens_that_the_embedding_lacks_are_refused(base: ResidentBase):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(PROBES.prompts[0])
    with pytest.raises(UnsupportedBase, match=r"token \d+, and the embedding has \d+ rows: the base must have"):
        Encoder(replace(base, tokenizer=tokenizer), PROBES)


def test_unknown_feature_is_rejected(base: ResidentBase):
    with pytest.raises(UnknownFeature):
        Encoder(base, PROBES, ["delta_taste"])


@pytest.mark.parametrize(
    ("layer", "index"),
    [(-1, -1), (30, -1), (0, 0), (29, 29), (-2, 29), (-31, 0), (0.0, 0), (0.5, 15), (1.0, -1), (0.99, -1)],
)
def test_layers_are_indices_or_fractions(layer: int | float, index: int):
    assert resolve_layer(layer, 30) == index


@pytest.mark.parametrize("layer", [31, -32, 1.5, -0.1, float("nan")])
def test_missing_layers_are_rejected(layer: int | float):
    with pytest.raises(InvalidInput):
        resolve_layer(layer, 30)


def test_measured_base_has_one_table_for_each_feature(base: ResidentBase):
    tables = Encoder(base, PROBES, list(FEATURES)).measure_base()
    assert {name: table.shape for name, table in tables.items()} == {
        "delta_activations": (3, pico.HIDDEN),
        "delta_weighted_activations": (3, pico.HIDDEN),
        "delta_layers": (3, 2 * pico.HIDDEN),
        "delta_logits": (3, 258),
        "delta_meaning": (1, 336),
    }
    assert {table.dtype for table in tables.values()} == {np.dtype("float32")}


def test_stored_table_replaces_a_measurement(base: ResidentBase, adapter: Path):
    measured = Encoder(base, PROBES)
    tables = measured.measure_base()
    restored = Encoder(base, PROBES)
    restored.use_base({"delta_activations": tables["delta_activations"] + 1})
    shift = (
        encode(measured, adapter).vectors["delta_activations"] - encode(restored, adapter).vectors["delta_activations"]
    )
    np.testing.assert_allclose(shift, 1, rtol=1e-5)


@pytest.mark.usefixtures("four_continuations")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("feature", FEATURES)
def test_adapter_without_effect_stays_below_the_noise_floor(
    folder: Path, tmp_path: Path, adapter: Path, feature: str, dtype: str
):
    encoder = Encoder(ResidentBase.load(folder, "pico/llama", "abc", dtype=dtype), PROBES, [feature])
    unmoved = encode(encoder, pico.make_adapter(tmp_path, scale=0))
    floor = encoder.noise_floor()[feature]
    assert floor > 0
    assert unmoved.norms[feature] <= floor
    assert encode(encoder, adapter).norms[feature] > floor


def test_norm_is_that_of_the_vector(base: ResidentBase, adapter: Path):
    encoding = encode(Encoder(base, PROBES), adapter)
    assert encoding.norms["delta_activations"] == pytest.approx(np.linalg.norm(encoding.vectors["delta_activations"]))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, when it loads the reference adapter
def test_explanation_matches_the_shift_of_logits(base: ResidentBase, folder: Path, adapter: Path):
    explanation = encode(Encoder(base, PROBES), adapter).explanation
    assert explanation is not None
    tuned, before = load_with(folder, adapter), load(folder)
    shifts = torch.stack([_logits(tuned, base, text) - _logits(before, base, text) for text in PROBES.prompts]).mean(
        dim=0
    )
    best, worst = shifts.argsort(descending=True)[:20], shifts.argsort()[:20]
    assert [entry.token_id for entry in explanation.promoted] == best.tolist()
    assert [entry.token_id for entry in explanation.suppressed] == worst.tolist()
    assert [entry.shift for entry in explanation.promoted] == pytest.approx(shifts[best].tolist(), abs=1e-4)
    assert explanation.promoted[0].token == base.tokenizer.decode([explanation.promoted[0].token_id])


def test_explanations_of_a_batch_are_those_of_its_adapters(base: ResidentBase, adapter: Path, tmp_path: Path):
    encoder = Encoder(base, PROBES)
    other = pico.make_adapter(tmp_path, seed=1)
    both = encoder.encode([read_finetune(adapter), read_finetune(other)])
    assert [entry.explanation for entry in both if isinstance(entry, Encoding)] == [
        encode(encoder, adapter).explanation,
        encode(encoder, other).explanation,
    ]


@pytest.mark.parametrize("settings", [{"layer": 1}, {"features": ["delta_weighted_activations"]}])
def test_only_shifts_after_the_final_norm_are_explained(base: ResidentBase, adapter: Path, settings: dict):
    assert encode(Encoder(base, PROBES, **settings), adapter).explanation is None


def test_probe_set_decides_the_shape_of_the_base_table(base: ResidentBase):
    tables = Encoder(base, ProbeSet("seven", tuple("abcdefg"))).measure_base()
    assert tables["delta_activations"].shape == (7, pico.HIDDEN)


def _logits(model: torch.nn.Module, base: ResidentBase, text: str) -> torch.Tensor:
    with torch.no_grad():
        return model(**base.tokenizer(text, return_tensors="pt")).logits[0, -1]
