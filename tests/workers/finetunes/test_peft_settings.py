"""The tables of settings, compared with the configs of the installed PEFT, and what each setting leads to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from tests.support import pico
from workers.finetunes.adapter_folder import PROMPT_KINDS
from workers.finetunes.peft_kinds import KINDS
from workers.finetunes.peft_settings import (
    READ,
    REFUSED,
    WITHOUT_EFFECT,
    check_settings,
    known_settings,
    refused_settings,
    with_defaults,
)
from workers.finetunes.reading import read_finetune

SUPPORTED = (*KINDS, "ADALORA", "LN_TUNING", "TRAINABLE_TOKENS", *PROMPT_KINDS)


def fields(peft_type: str) -> dict[str, Any]:
    """The settings of a PEFT type with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(peft_type)])}


@pytest.mark.parametrize("peft_type", SUPPORTED)
def test_meaning_of_every_setting_of_peft_is_decided(peft_type: str):
    undecided = fields(peft_type).keys() - known_settings(peft_type) - refused_settings(peft_type).keys()
    assert undecided == set()


def test_tables_hold_only_settings_and_types_of_peft():
    existing = set().union(*(fields(peft_type) for peft_type in SUPPORTED))
    assert set().union(*map(known_settings, SUPPORTED), REFUSED) <= existing
    assert set(SUPPORTED) == WITHOUT_EFFECT.keys() >= READ.keys()


@pytest.mark.parametrize("peft_type", SUPPORTED)
def test_no_setting_is_both_known_and_refused(peft_type: str):
    assert not known_settings(peft_type) & refused_settings(peft_type).keys()


@pytest.mark.parametrize("peft_type", ["LORA", "ADALORA"])
def test_missing_settings_have_the_defaults_of_peft(peft_type: str):
    defaults = with_defaults({}, peft_type)
    assert defaults.pop("peft_type") == peft_type
    assert len(defaults) == 2
    assert {name: fields(peft_type)[name] for name in defaults} == defaults


# settings that are on


@pytest.mark.parametrize("peft_type", ["LORA", "LOHA", "PROMPT_TUNING"])
@pytest.mark.parametrize("value", [True, 1, 0.5, "yes", [0], {"a": {"b": True}}, {"a": 0, "b": [1]}])
def test_unknown_setting_that_is_on_is_refused_by_name(peft_type: str, value: object):
    with pytest.raises(UnsupportedAdapter, match=r"'use_new_kind'.*does not know.*remove the setting"):
        check_settings({"use_new_kind": value}, peft_type)


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}, {"a": None, "b": {"c": False, "d": []}}])
def test_unknown_setting_that_is_off_passes(value: object):
    check_settings({"use_new_kind": value}, "LORA")


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("alora_invocation_tokens", [0], "activated"),
        ("arrow_config", {"top_k": 3}, "Arrow"),
        ("kasa_config", {"beta": 1e-4}, "KaSA"),
        ("layer_replication", [[0, 2], [1, 2]], "more layers"),
        ("monteclora_config", {"num_samples": 8}, "MonteCLoRA"),
        ("use_bdlora", {"nblocks": 1}, "block-diagonal"),
        ("use_qalora", True, "QALoRA"),
        ("velora_config", {"num_groups": 64}, "VeLoRA"),
    ],
)
def test_variant_that_is_not_run_is_refused_by_name(setting: str, value: object, word: str):
    with pytest.raises(UnsupportedAdapter, match=rf"{setting} \(.*{word}.*submit a plain LoRA"):
        check_settings({setting: value}, "LORA")


@pytest.mark.parametrize("setting", ["use_dora", "lora_bias", "target_parameters"])
def test_adalora_with_settings_of_lora_is_refused(setting: str):
    with pytest.raises(UnsupportedAdapter, match=setting):
        check_settings({setting: ["a"]}, "ADALORA")


def test_settings_of_ms_swift_have_no_effect():
    check_settings({"lora_dtype": "bf16", "lorap_lr_ratio": 16.0, "lorap_emb_lr": 1e-6}, "LORA")


@pytest.mark.parametrize("text", ["true", "false", ""])
def test_switch_that_is_a_text_is_invalid(text: str):
    with pytest.raises(InvalidAdapterConfig, match=f"use_rslora .* is the text '{text}': write true or false"):
        check_settings({"use_rslora": text}, "LORA")


# initializations


@pytest.mark.parametrize("init", [None, True, False, "gaussian", "Gaussian", "EVA", "mica", "MiCA", "orthogonal"])
def test_initialization_that_leaves_the_base_as_it_is_passes(init: object):
    check_settings({"init_lora_weights": init}, "LORA")


@pytest.mark.parametrize("init", ["pissa", "PiSSA_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_initialization_that_changed_the_base_is_refused(init: str):
    with pytest.raises(UnsupportedAdapter, match=rf"{init}.*also changed.*convert it"):
        check_settings({"init_lora_weights": init}, "LORA")


@pytest.mark.parametrize("init", ["new_init", 7, ["gaussian"]])
def test_unknown_initialization_is_refused(init: object):
    with pytest.raises(UnsupportedAdapter, match=r"does not know.*write true"):
        check_settings({"init_lora_weights": init}, "LORA")


# missing settings


def without(folder: Path, *settings: str) -> Path:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in config.items() if name not in settings}))
    return folder


def test_lora_without_rank_and_alpha_has_the_scale_of_peft(tmp_path: Path):
    finetune = read_finetune(without(pico.make_adapter(tmp_path, rank=8), "r", "lora_alpha"))
    assert {module.scale for module in finetune.modules.values()} == {1.0}


@pytest.mark.parametrize("rank", ["8", 8.0, None, True])
def test_rank_that_peft_cannot_use_is_invalid(tmp_path: Path, rank: object):
    path = pico.make_adapter(tmp_path, rank=8) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": rank}))
    with pytest.raises(InvalidAdapterConfig, match=r"The rank in adapter_config.json is .*write the trained rank"):
        read_finetune(tmp_path)


@pytest.mark.parametrize("alpha", [16.0, 0.5, 16])
def test_alpha_is_any_number(tmp_path: Path, alpha: float):
    path = pico.make_adapter(tmp_path, rank=8) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": alpha}))
    assert {module.scale for module in read_finetune(tmp_path).modules.values()} == {alpha / 8}


def test_peft_type_in_lower_case_is_read(tmp_path: Path):
    path = pico.make_adapter(tmp_path) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peft_type": "lora"}))
    assert read_finetune(tmp_path).config["peft_type"] == "LORA"
