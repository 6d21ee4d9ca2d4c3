"""Adapters of every kind for the pico models, created and saved by PEFT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
from transformers import PreTrainedModel

from tests.support.pico_models import EMBEDDING, HEAD, attention, feedforward, make_adapter, norms

TASK = "CAUSAL_LM"
NEW_VOCABULARY = 270
NO_CONV1D = ("loha", "lokr", "oft", "boft", "hra", "miss", "c3a", "road", "delora")  # PEFT has no layers for GPT-2's


@dataclass(frozen=True)
class Kind:
    """The config of an adapter for an architecture, and a change that the base needs first."""

    config: Callable[[str], peft.PeftConfig]
    prepare: Callable[[PreTrainedModel], object] | None = None


def linear_layers(architecture: str) -> list[str]:
    return [*attention(architecture), *feedforward(architecture)]


def saved_modules(architecture: str) -> list[str]:
    head = HEAD.get(architecture, "lm_head")
    return [EMBEDDING.get(architecture, "embed_tokens"), head, norms(architecture)[1]]


def grow_vocabulary(model: PreTrainedModel) -> None:
    model.resize_token_embeddings(NEW_VOCABULARY)


def lora(**settings: Any) -> Callable[[str], peft.PeftConfig]:
    def config(architecture: str) -> peft.PeftConfig:
        settings.setdefault("target_modules", None)
        targets = settings["target_modules"] or linear_layers(architecture)
        transposed = architecture == "gpt2"  # Conv1D
        return peft.LoraConfig(**{**settings, "target_modules": targets}, task_type=TASK, fan_in_fan_out=transposed)

    return config


def on_linear(make: type[peft.PeftConfig], **settings: Any) -> Callable[[str], peft.PeftConfig]:
    return lambda architecture: make(target_modules=linear_layers(architecture), task_type=TASK, **settings)


KINDS: dict[str, Kind] = {
    "lora": Kind(lora(r=4)),
    "rslora": Kind(lora(r=4, use_rslora=True)),
    "lora_patterns": Kind(lora(r=4, rank_pattern={"0.*": 2}, alpha_pattern={".*1\\..*": 16})),
    "lora_embedding": Kind(
        lambda architecture: peft.LoraConfig(
            r=4, target_modules=[EMBEDDING.get(architecture, "embed_tokens"), *attention(architecture)], task_type=TASK
        )
    ),
    "lora_bias": Kind(lora(r=4, lora_bias=True)),
    "trained_biases": Kind(lora(r=4, bias="all")),
    "dora": Kind(lora(r=4, use_dora=True)),
    "dora_patterns": Kind(lora(r=4, use_dora=True, use_rslora=True, rank_pattern={"0.*": 2})),
    "modules_to_save": Kind(lambda architecture: lora(r=4, modules_to_save=saved_modules(architecture))(architecture)),
    "larger_vocabulary": Kind(
        lambda architecture: lora(r=4, modules_to_save=saved_modules(architecture)[:2])(architecture),
        prepare=grow_vocabulary,
    ),
    "trained_tokens": Kind(lora(r=4, trainable_token_indices=[2, 70, 71])),
    "adalora": Kind(
        lambda architecture: peft.AdaLoraConfig(
            target_modules=linear_layers(architecture), task_type=TASK, total_step=9
        )
    ),
    "loha": Kind(on_linear(peft.LoHaConfig, r=4)),
    "lokr": Kind(on_linear(peft.LoKrConfig, r=4)),
    "ia3": Kind(
        lambda architecture: peft.IA3Config(
            target_modules=linear_layers(architecture), feedforward_modules=feedforward(architecture), task_type=TASK
        )
    ),
    "vera": Kind(lambda architecture: peft.VeraConfig(target_modules=attention(architecture)[:1], r=8, task_type=TASK)),
    "vera_unsaved": Kind(
        lambda architecture: peft.VeraConfig(
            target_modules=attention(architecture)[:1], r=8, save_projection=False, task_type=TASK
        )
    ),
    "oft": Kind(on_linear(peft.OFTConfig, r=0, oft_block_size=8)),
    "boft": Kind(on_linear(peft.BOFTConfig, boft_block_size=4)),
    "ln_tuning": Kind(lambda architecture: peft.LNTuningConfig(target_modules=norms(architecture), task_type=TASK)),
    "prompt_tuning": Kind(lambda architecture: peft.PromptTuningConfig(num_virtual_tokens=3, task_type=TASK)),
    "p_tuning": Kind(
        lambda architecture: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, task_type=TASK)
    ),
    "prefix_tuning": Kind(lambda architecture: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type=TASK)),
    "projected_prefix": Kind(
        lambda architecture: peft.PrefixTuningConfig(
            num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=16, task_type=TASK
        )
    ),
    "hra": Kind(on_linear(peft.HRAConfig, r=4)),
    "fourierft": Kind(on_linear(peft.FourierFTConfig, n_frequency=50)),
    "miss": Kind(on_linear(peft.MissConfig, r=8)),
    "c3a": Kind(on_linear(peft.C3AConfig, block_size=8)),
    "road": Kind(on_linear(peft.RoadConfig, group_size=8)),
    "delora": Kind(on_linear(peft.DeloraConfig, r=4)),
    "hira": Kind(on_linear(peft.HiraConfig, r=4)),
    "gralora": Kind(on_linear(peft.GraloraConfig, r=4)),
}


def publish(base: Path, folder: Path, architecture: str, kind: str, *, seed: int = 0) -> Path:
    """Write an adapter to `folder` as its author would publish it."""
    recipe = KINDS[kind]
    return make_adapter(base, folder, recipe.config(architecture), seed=seed, prepare=recipe.prepare)
