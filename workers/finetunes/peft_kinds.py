"""The PEFT types whose layers PEFT itself runs here, and what of their configs reaches it.

A config is a stranger's, and some of PEFT's settings name modules to import, files to unpickle or repos to load. So
only settings that this table names are handed on. Where an adapter sits is read off its tensors' names, and patterns
are resolved to the full names of modules first, so PEFT never matches a pattern at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from workers.finetunes.lora_config import MAX_RANK, LoraModule, check_alpha, check_rank
from workers.finetunes.module_patterns import ModulePatterns

if TYPE_CHECKING:
    from peft import PeftConfig

RANKS = ("r", "rank_pattern")  # may not exceed what a plain LoRA's may
INNER = ("n_frequency_pattern", "block_size_pattern")  # which PEFT matches by a rule of their own
MAX_TARGETS = 4096  # modules; PEFT compares each of them with each module of the base


@dataclass(frozen=True)
class PeftKind:
    """`leaf` begins the names of the type's tensors within a module. `settings` bear on the forward and are numbers,
    booleans or words; `patterns` give some modules other values than a setting does.
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
    """Settings of single modules by their full names.

    PEFT looks for a pattern among the keys, of which it is shown none, and then under the module's own name.
    """

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return dict[str, Any]().keys()

    def __iter__(self) -> Iterator[str]:
        return iter(())


def peft_config(config: Mapping[str, Any], targets: Mapping[str, str], fan_in_fan_out: bool, **more: Any) -> PeftConfig:
    """The config that PEFT gets. `targets` are the modules' names in the model and in the adapter.

    Raises `InvalidAdapterConfig`, `UnsupportedAdapter`.
    """
    from peft import PeftType  # importing PEFT takes seconds, and most adapters need none
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if len(targets) > MAX_TARGETS:
        raise UnsupportedAdapter(f"The adapter changes more than {MAX_TARGETS:,} modules, each in a way of PEFT's own.")
    name = str(config["peft_type"])
    kind = KINDS[name]
    settings = {key: _checked(key, config[key]) for key in kind.settings if config.get(key) is not None}
    for key in kind.patterns:
        patterns = ModulePatterns(config, key, inner=key in INNER)
        values = {local: patterns.value(given, None) for local, given in targets.items()}
        settings[key] = ByName({local: _checked(key, value) for local, value in values.items() if value is not None})
    make = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name)]
    if "fan_in_fan_out" in make.__dataclass_fields__:
        settings["fan_in_fan_out"] = fan_in_fan_out
    try:
        return make(**{"target_modules": sorted(targets), "inference_mode": True, **settings, **more})
    except (ValueError, TypeError) as error:
        raise InvalidAdapterConfig(f"PEFT does not take this {name} config: {str(error)[:300]}") from error


def lora_settings(modules: Mapping[str, LoraModule]) -> dict[str, Any]:
    """Rank and alpha of each module, so that PEFT comes to the same scales as we do."""
    ranks = {name: module.a.shape[0] for name, module in modules.items()}
    alphas = {name: module.a.shape[0] * module.scale for name, module in modules.items()}
    return {"rank_pattern": ByName(ranks), "alpha_pattern": ByName(alphas)}


def expert_settings(config: Mapping[str, Any], targets: set[str], model_parameters: Iterable[str]) -> dict[str, Any]:
    """LoRA on experts, whose factors only PEFT knows how to stack and take apart. `model_parameters` are the names of
    the base's parameters.

    Raises `InvalidAdapterConfig`, `UnsupportedAdapter`.
    """
    parameters = config.get("target_parameters") or []
    if not isinstance(parameters, list) or not all(isinstance(name, str) for name in parameters):
        raise InvalidAdapterConfig("target_parameters is not a list of names.")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UnsupportedAdapter("LoRA on experts cannot be combined with patterns of ranks or alphas.")
    if len(targets) > MAX_TARGETS:
        raise UnsupportedAdapter(f"The adapter changes more than {MAX_TARGETS:,} modules, each in a way of PEFT's own.")
    wanted = set(parameters)  # any number of names, most of which may be nothing's
    found = {end for name in model_parameters for end in _ends(name) if end in wanted}
    return {
        "target_modules": sorted(targets),
        "target_parameters": sorted(found),
        "r": check_rank(config.get("r")),
        "lora_alpha": check_alpha("The adapter", config.get("lora_alpha", 8)),
        "use_rslora": bool(config.get("use_rslora")),
    }


def feedforward_settings(factors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """IA3 (arXiv 2205.05638 section 3.3): a factor (1, in) scales what goes into a module, others what leaves it."""
    inputs = [name for name, factor in factors.items() if factor is not None and factor.shape[:1] == (1,)]
    return {"feedforward_modules": inputs}


def _ends(name: str) -> Iterator[str]:
    """A name, and what is left of it behind each of its dots."""
    while name:
        yield name
        name = name.partition(".")[2]


def _checked(key: str, value: Any) -> Any:
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidAdapterConfig(f"{key} is {str(value)[:40]}, which is neither a number nor a word.")
    if key in RANKS and not (type(value) is int and 0 <= value <= MAX_RANK):
        raise InvalidAdapterConfig(f"The rank is {str(value)[:40]}; it must be a whole number up to {MAX_RANK:,}.")
    return value
