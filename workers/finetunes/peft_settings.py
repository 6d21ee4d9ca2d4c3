"""Every setting of the supported PEFT types, and what each means for the forward pass.

A setting that is in none of these tables comes from a newer PEFT or another program. It changes nothing while it is off
(null, false, 0, "", [], {}). An adapter on which it is on is refused, because nobody has decided what it means. A test
compares the tables with the configs of the installed PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from workers.finetunes.peft_kinds import KINDS

# of every PEFT type: which base and task, and in what environment
_ORIGIN = (
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
    "inference_mode",
)
# which modules and biases were trained; the names of the tensors say the same
_TARGETS = (
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "bias",
    "fan_in_fan_out",  # of the base's modules
)
_WEIGHTS = (*_TARGETS, "init_weights")

# settings that an encoding path reads, in addition to those in `peft_kinds.KINDS`
_TOKENS = ("modules_to_save", "trainable_token_indices", "ensure_weight_tying")
READ: dict[str, tuple[str, ...]] = {
    "LORA": (
        *_TOKENS,
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights", "target_parameters"),
    ),
    "ADALORA": (*_TOKENS, "init_r", "lora_alpha", "init_lora_weights"),
    "TRAINABLE_TOKENS": ("token_indices",),
    "PROMPT_TUNING": ("num_virtual_tokens",),
    "P_TUNING": ("num_virtual_tokens",),
    "PREFIX_TUNING": ("num_virtual_tokens", "num_attention_heads"),
}

# settings of training, of initial values, and of what the tensors say
_LORA_WITHOUT_EFFECT = (
    *_TARGETS,
    *("lora_dropout", "megatron_config", "megatron_core", "qalora_group_size", "runtime_config"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),  # of initializations
)
_PROMPT_WITHOUT_EFFECT = (
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "modules_to_save",
    "encoder_hidden_size",
)
WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "LORA": _LORA_WITHOUT_EFFECT,
    "ADALORA": (
        *_LORA_WITHOUT_EFFECT,
        *("r", "use_rslora", "rank_pattern", "alpha_pattern"),  # AdaLoRA saves the ranks that it kept
        *("target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
    ),
    "LOHA": (*_WEIGHTS, "rank_dropout", "module_dropout", "use_effective_conv2d"),
    "LOKR": (*_WEIGHTS, "rank_dropout", "rank_dropout_scale", "module_dropout", "use_effective_conv2d"),
    "IA3": (*_TARGETS, "feedforward_modules", "init_ia3_weights"),
    "VERA": (*_WEIGHTS, "vera_dropout", "d_initial"),
    "OFT": (*_WEIGHTS, "module_dropout"),
    "BOFT": (*_WEIGHTS, "boft_dropout"),
    "HRA": _WEIGHTS,
    "FOURIERFT": _WEIGHTS,
    "MISS": (*_TARGETS, "miss_dropout"),
    "C3A": _WEIGHTS,
    "ROAD": _WEIGHTS,
    "DELORA": (*_WEIGHTS, "module_dropout"),
    "HIRA": (*_WEIGHTS, "hira_dropout"),
    "GRALORA": (*_WEIGHTS, "gralora_dropout"),
    "LN_TUNING": _TARGETS,
    "TRAINABLE_TOKENS": _WEIGHTS,
    "PROMPT_TUNING": (
        *_PROMPT_WITHOUT_EFFECT,
        *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    ),
    "P_TUNING": (
        *_PROMPT_WITHOUT_EFFECT,
        *("encoder_reparameterization_type", "encoder_num_layers", "encoder_dropout"),
    ),
    "PREFIX_TUNING": (*_PROMPT_WITHOUT_EFFECT, "init_weights", "prefix_projection"),
}
# written by programs around PEFT: learning rates and dtypes of ms-swift's training, and a setting of PEFT 0.2
OTHER_PROGRAMS = ("lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "merge_weights")

SWITCHES = ("use_rslora", "use_dora", "lora_bias", "ensure_weight_tying", "fan_in_fan_out")
# settings that change the forward pass in ways that no encoding path implements, with what they are
REFUSED: dict[str, str] = {
    "alora_invocation_tokens": "activated LoRA, which changes only what follows an invocation",
    "arrow_config": "Arrow, which routes between several adapters",
    "kasa_config": "KaSA, which also changes the weights of its base",
    "layer_replication": "a model with more layers than its base",
    "monteclora_config": "MonteCLoRA, which samples its weights",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA, whose A reads pooled inputs",
    "velora_config": "VeLoRA",
}
REFUSED_IN_ADALORA: dict[str, str] = {
    "lora_bias": "biases of LoRA",
    "target_parameters": "LoRA on parameters",
    "use_dora": "DoRA",
}

_DEFAULTS: dict[str, dict[str, int]] = {
    "LORA": {"r": 8, "lora_alpha": 8},
    "ADALORA": {"init_r": 12, "lora_alpha": 8},
}
_INITS_WITH_UNCHANGED_BASE = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")
_INITS_WITH_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def known_settings(peft_type: str) -> frozenset[str]:
    """All settings of a supported PEFT type that are read or have no effect."""
    kind = KINDS.get(peft_type)
    settings = (*kind.settings, *kind.patterns) if kind else ()
    return frozenset((*_ORIGIN, *settings, *READ.get(peft_type, ()), *WITHOUT_EFFECT[peft_type]))


def refused_settings(peft_type: str) -> Mapping[str, str]:
    """The settings of a supported PEFT type that are refused when they are on, with what they are."""
    if peft_type not in ("LORA", "ADALORA"):
        return {}
    return REFUSED | REFUSED_IN_ADALORA if peft_type == "ADALORA" else REFUSED


def with_defaults(config: Mapping[str, Any], peft_type: str) -> dict[str, Any]:
    """The config with PEFT's defaults for the settings that our own code reads and the config leaves out."""
    return {**_DEFAULTS.get(peft_type, {}), **config, "peft_type": peft_type}


def check_settings(config: Mapping[str, Any], peft_type: str) -> None:
    """Raise `UnsupportedAdapter` for a setting that is on and not supported or not known, and for LoRA on a changed
    base; `InvalidAdapterConfig` for a switch that is a text.
    """
    refused, known = refused_settings(peft_type), known_settings(peft_type)
    for setting in SWITCHES:
        if isinstance(config.get(setting), str):  # any text is on for PEFT, "false" too
            raise InvalidAdapterConfig(
                f"{setting} in adapter_config.json is the text {config[setting][:40]!r}: write true or false, without "
                "quotes."
            )
    for setting, value in config.items():
        if setting in refused and value:
            raise UnsupportedAdapter(
                f"The adapter uses {setting} ({refused[setting]}), which is not supported: submit a plain LoRA, or a "
                "full model of the same architecture into which the adapter was merged."
            )
        if setting in refused or setting in known or setting in OTHER_PROGRAMS or not _is_on(value):
            continue
        raise UnsupportedAdapter(
            f"adapter_config.json switches on {setting[:80]!r}, which PEFT {version('peft')} does not know for "
            f"{peft_type}, so its effect is unknown: remove the setting if it has none on the forward pass, or submit "
            "a plain LoRA or the merged model."
        )
    if peft_type in ("LORA", "ADALORA"):
        _check_init(config.get("init_lora_weights"))


def _check_init(init: Any) -> None:
    """Raises `UnsupportedAdapter` for an initialization that changed the base, and for an unknown one."""
    name = str(init).lower()
    if name in _INITS_WITH_UNCHANGED_BASE:
        return
    if name.startswith(_INITS_WITH_CHANGED_BASE):
        raise UnsupportedAdapter(
            f"The adapter was made with init_lora_weights={str(init)[:40]!r}, which also changed its base's weights: "
            "convert it to a plain LoRA (PEFT's `path_initial_model_for_weight_conversion`)."
        )
    raise UnsupportedAdapter(
        f"The adapter was made with init_lora_weights={str(init)[:40]!r}, which PEFT {version('peft')} does not know, "
        "so it may have changed its base's weights: write true if it did not, or submit a plain LoRA or the merged "
        "model."
    )


def peft_type_of(config: Mapping[str, Any], name: str) -> str | None:
    """The PEFT type that the config declares; None if it declares none.

    Raises `UnsupportedAdapter`.
    """
    peft_type = config.get("peft_type")
    if peft_type is None:
        return None
    if not isinstance(peft_type, str) or peft_type.upper() not in WITHOUT_EFFECT:
        raise UnsupportedAdapter(
            f"{name} has the PEFT type {str(peft_type)[:40]!r}, which is not supported: if it can be merged into its "
            "base, submit the merged model."
        )
    return peft_type.upper()


def _is_on(value: Any) -> bool:
    """Whether an unknown setting has another value than null, false, 0, "", an empty list or an object of these."""
    return any(map(_is_on, value.values())) if isinstance(value, dict) else bool(value)
