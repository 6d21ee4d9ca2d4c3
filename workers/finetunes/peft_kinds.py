"""The PEFT types that PEFT itself runs, and the settings of their configs that are passed on to PEFT.

A config is untrusted, and some of PEFT's settings name modules to import, files to unpickle or repos to load. So only
the settings in this table are passed on. The target modules are read from the names of the tensors, and patterns are
resolved to full module names first, so that PEFT never matches a pattern.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from workers.finetunes.lora_config import MAX_RANK, LoraModule
from workers.finetunes.module_patterns import ModulePatterns

if TYPE_CHECKING:
    from peft import PeftConfig

RANK_SETTINGS = ("r", "rank_pattern")  # limited to `MAX_RANK`, as for plain LoRA
INNER_PATTERNS = ("n_frequency_pattern", "block_size_pattern")  # PEFT matches these by another rule
MAX_TARGETS = 4096  # modules; PEFT compares each target with each module of the base


@dataclass(frozen=True)
class PeftKind:
    """One PEFT type.

    `leaf` is the prefix of its tensors' names within a module. `settings` affect the forward pass and are numbers,
    booleans or strings. `patterns` override a setting for some modules.
    """

    leaf: str
    settings: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


_RANK_AND_ALPHA = ("rank_pattern", "alpha_pattern")
KINDS = {
    "LORA": PeftKind("lora_", ("use_dora", "lora_bias")),
    "LOHA": PeftKind("hada_", ("r", "alpha"), _RANK_AND_ALPHA),
    "LOKR": PeftKind("lokr_", ("r", "alpha", "decompose_both", "decompose_factor"), _RANK_AND_ALPHA),
    "IA3": PeftKind("ia3_"),
    "VERA": PeftKind("vera_lambda_", ("r", "projection_prng_key", "save_projection")),
    "OFT": PeftKind(
        "oft_", ("r", "oft_block_size", "coft", "eps", "block_share", "use_cayley_neumann", "num_cayley_neumann_terms")
    ),
    "BOFT": PeftKind("boft_", ("boft_block_size", "boft_block_num", "boft_n_butterfly_factor")),
    "HRA": PeftKind("hra_", ("r", "apply_GS")),
    "FOURIERFT": PeftKind("fourierft_", ("n_frequency", "scaling", "random_loc_seed"), ("n_frequency_pattern",)),
    "MISS": PeftKind("miss_", ("r", "mini_r", "init_weights")),
    "C3A": PeftKind("c3a_", ("block_size",), ("block_size_pattern",)),
    "ROAD": PeftKind("road_", ("variant", "group_size")),
    "DELORA": PeftKind("delora_", ("r", "delora_lambda"), ("rank_pattern", "lambda_pattern")),
    "HIRA": PeftKind("hira_", ("r",), ("rank_pattern",)),
    "GRALORA": PeftKind("gralora_", ("r", "hybrid_r", "alpha", "gralora_k")),
}


class ByName(dict[str, Any]):
    """Per-module settings by full module names.

    PEFT first matches the keys as patterns, so iteration yields no keys; then it looks up the module's name.
    """

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return dict[str, Any]().keys()

    def __iter__(self) -> Iterator[str]:
        return iter(())


def peft_config(
    config: Mapping[str, Any], targets: Mapping[str, str], fan_in_fan_out: bool, **derived: Any
) -> PeftConfig:
    """The config for PEFT. `targets` maps module names in the model to those in the adapter.

    Raises `InvalidAdapterConfig`, `UnsupportedAdapter`.
    """
    from peft import PeftType  # importing PEFT takes seconds, and most adapters do not need it
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if len(targets) > MAX_TARGETS:
        raise UnsupportedAdapter(f"The adapter has more than {MAX_TARGETS:,} target modules, too many for PEFT.")
    name = str(config["peft_type"])
    kind = KINDS[name]
    settings = {key: _checked(key, config[key]) for key in kind.settings if config.get(key) is not None}
    for key in kind.patterns:
        patterns = ModulePatterns(config, key, inner=key in INNER_PATTERNS)
        values = {model_name: patterns.value(adapter_name, None) for model_name, adapter_name in targets.items()}
        settings[key] = ByName(
            {model_name: _checked(key, value) for model_name, value in values.items() if value is not None}
        )
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name)]
    if "fan_in_fan_out" in config_class.__dataclass_fields__:
        settings["fan_in_fan_out"] = fan_in_fan_out
    try:
        return config_class(**{"target_modules": sorted(targets), "inference_mode": True, **settings, **derived})
    except (ValueError, TypeError) as error:
        raise InvalidAdapterConfig(f"PEFT does not accept this {name} config: {str(error)[:300]}") from error


def lora_settings(modules: Mapping[str, LoraModule]) -> dict[str, Any]:
    """Rank and alpha of each module, so that PEFT computes the same scales as `parse_lora`."""
    ranks = {name: module.a.shape[0] for name, module in modules.items()}
    alphas = {name: module.a.shape[0] * module.scale for name, module in modules.items()}
    return {"rank_pattern": ByName(ranks), "alpha_pattern": ByName(alphas)}


def feedforward_settings(factors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """IA3 (arXiv 2205.05638 section 3.3): a factor (1, in) scales the input of a module, (out, 1) its output."""
    inputs = [
        name for name, factor in factors.items() if factor is not None and factor.ndim == 2 and factor.shape[1] > 1
    ]
    return {"feedforward_modules": inputs}


def _checked(key: str, value: Any) -> Any:
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidAdapterConfig(f"{key} is {str(value)[:40]}, which is neither a number nor a string.")
    if key in RANK_SETTINGS and not (type(value) is int and 0 <= value <= MAX_RANK):
        raise InvalidAdapterConfig(f"The rank is {str(value)[:40]}; it must be a whole number up to {MAX_RANK:,}.")
    return value
