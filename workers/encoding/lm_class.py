"""The causal LM around a headless model, on the device "meta": what its class says about the output head.

Which module is the head, whether it is tied to the embedding, under which names files store it, and what happens to
logits after it differs from class to class, so the class itself is asked and run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from workers.finetunes.tensor_names import wrapper_patterns
from workers.finetunes.weight_files import local_headers, tensor_entries

# multimodal classes first: the causal LM of a multimodal type may be its text model alone
LM_CLASSES: tuple[Any, ...] = (AutoModelForMultimodalLM, AutoModelForImageTextToText, AutoModelForCausalLM)
SMALL, LARGE = 2.0**-10, 2.0**30  # states that show the factor of logits and their bound
MAX_ERROR = 1e-5  # relative


def lm_auto_class(config: PreTrainedConfig) -> Any | None:
    """The auto class of transformers that has a causal LM for a config; None if there is none."""
    return next((auto for auto in LM_CLASSES if type(config) in auto._model_mapping), None)


def has_headless_class(config: PreTrainedConfig) -> bool:
    """Whether `AutoModel` knows a config. Of a few types (PP-Chart2Table), transformers has the causal LM alone."""
    return type(config) in AutoModel._model_mapping


def is_text_alone(config: PreTrainedConfig) -> bool:
    """Whether a config is that of a text model, and not of a multimodal model with a text model in it."""
    return config.get_text_config() is config


def headless(config: PreTrainedConfig) -> PreTrainedModel:
    """The headless model of a config, without weights: that of `AutoModel`, or the body of the causal LM.

    Raises `ValueError` and what the class raises for settings that it does not know.
    """
    lm = None if has_headless_class(config) else causal_lm(config)
    if lm is not None and (body := body_name(lm)):
        return cast(PreTrainedModel, lm.get_submodule(body))
    with torch.device("meta"):
        return AutoModel.from_config(config, trust_remote_code=False, attn_implementation="eager")


def causal_lm(config: PreTrainedConfig) -> PreTrainedModel | None:
    """The causal LM of a config, without weights; None if transformers has none."""
    auto_class = lm_auto_class(config)
    if auto_class is None:
        return None
    with torch.device("meta"):
        return auto_class.from_config(copy.deepcopy(config), attn_implementation="eager")


def body_name(lm: PreTrainedModel) -> str | None:
    """The name of the headless model in its causal LM; None if it is no module of its own."""
    return next((name for name, module in lm.named_children() if isinstance(module, PreTrainedModel)), None)


def head_name(lm: PreTrainedModel) -> str | None:
    """The name of the output head's module; None if there is none."""
    head = lm.get_output_embeddings()
    return next((name for name, module in lm.named_modules() if head is not None and module is head), None)


def is_tied(lm: PreTrainedModel, name: str) -> bool:
    """Whether the weight of the module `name` is tied to another one."""
    tied = lm.get_expanded_tied_weights_keys(all_submodels=True)
    return f"{name}.weight" in {*tied, *tied.values()}


def logit_factors(lm: PreTrainedModel, name: str) -> tuple[float, float | None] | None:
    """The factor of logits after the head `name`, and their bound (softcap, None if there is none), as the class's own
    forward computes them.

    None if they are not the head's product, times a factor, with a softcap.
    """
    # the class with the smallest head and a decoder that returns the states that it is given
    body = body_name(lm)
    if body is None or name not in lm._modules:
        return None
    probe, states = copy.copy(lm), _States(lm.get_submodule(body))
    probe._modules = {**lm._modules, body: states}
    head = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(head.weight)
    probe._modules[name] = head
    values = torch.tensor([SMALL, 1.0, 10.0, -3.0, LARGE], dtype=torch.float64)
    states.hidden = values[:, None, None]
    try:
        with torch.inference_mode():
            logits = probe(input_ids=torch.zeros(len(values), 1, dtype=torch.long)).logits.flatten().double()
    except Exception:  # a forward that needs more of its decoder
        return None
    scale, largest = float(logits[0] / SMALL), float(logits[-1])
    softcap = None if largest > 0.5 * abs(scale) * LARGE else largest
    expected = values * scale if softcap is None else softcap * torch.tanh(values * scale / softcap)
    error = float((logits - expected).norm() / expected.norm())
    return (scale, softcap) if error <= MAX_ERROR and math.isfinite(error) else None


class _States(nn.Module):
    """A decoder that returns `hidden`, (N, T, H), and has the settings of `decoder`, as do its parts."""

    hidden: Tensor

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self._of = (decoder,)  # not a submodule

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__dict__["_of"][0], name)
        return self if isinstance(value, nn.Module) else value

    def forward(self, *args: object, **kwargs: object) -> _Output:
        return _Output(self.hidden)


class _Output(tuple[Tensor]):
    """The output of a decoder, by position and by attribute; what a class has more of it is None."""

    def __new__(cls, hidden: Tensor) -> _Output:
        return super().__new__(cls, (hidden,))

    def __getattr__(self, name: str) -> Tensor | None:
        return self[0] if name in ("last_hidden_state", "hidden_states") else None


def stored_tensors(folder: Path, model: PreTrainedModel, names: Collection[str]) -> Mapping[str, Tensor]:
    """Those of a model's tensors `names` that the files in `folder` have, by their names in the model."""
    headers = local_headers(folder)
    patterns = wrapper_patterns(tensor_entries(headers), text_alone=is_text_alone(model.config))
    renamings = [entry for entry in get_model_conversion_mapping(model, patterns) if isinstance(entry, WeightRenaming)]
    expected = model.state_dict()
    tensors = {}
    for file, header in headers.items():
        for stored in header:
            name, _ = rename_source_key(stored, renamings, [], model.base_model_prefix, expected)
            if name in names:
                with safe_open(folder / file, framework="pt") as content:
                    tensors[name] = content.get_tensor(stored)
    return tensors
