"""The output head, which the resident base does without until a feature reads through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from catalog.errors import ShapeMismatch, UnsupportedBase
from workers.encoding.kernels import linear
from workers.finetunes.lora_config import LoraModule
from workers.finetunes.safetensors_file import read_header

ROWS = 16_384
NAMES = ("lm_head", "embed_out")  # GPT-NeoX has the second


@dataclass(frozen=True, eq=False)
class Head:
    """From hidden states after the final norm to logits, in float32.

    `scale` and `softcap` are what some families do to their logits (Cohere, Granite; Gemma 2, arXiv 2408.00118
    section 2). `lora` is an adapter's change of the head.
    """

    weight: Tensor  # (V, H), in whatever dtype
    bias: Tensor | None = None  # (V,)
    scale: float = 1.0
    softcap: float | None = None
    lora: LoraModule | None = None

    @property
    def vocabulary(self) -> int:
        return len(self.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """(M, H) -> (M, V)."""
        # a head of another dtype is turned into float32 some rows at a time: whole, it can be as large as its model
        logits = torch.cat([linear(hidden, rows.float()) for rows in self.weight.split(ROWS)], dim=-1)
        if self.lora is not None:
            a, b = (factor.to(hidden.device, hidden.dtype) for factor in (self.lora.a, self.lora.b))
            logits += hidden @ a.T @ b.T * self.lora.scale
        if self.bias is not None:
            logits += self.bias.to(logits.dtype)
        logits *= self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def roughly(self, hidden: Tensor) -> Tensor:
        """The linear part alone, (M, H) -> (M, V), in the precision of the weights."""
        return (hidden.to(self.weight.dtype) @ self.weight.T).float()

    def cut(self, vocabulary: int) -> Head:
        """The same for the first tokens alone; raises `ShapeMismatch` where it has fewer."""
        if self.vocabulary < vocabulary:
            raise ShapeMismatch(f"The output head has {self.vocabulary:,} tokens, and the base {vocabulary:,}.")
        bias = None if self.bias is None else self.bias[:vocabulary]
        return replace(self, weight=self.weight[:vocabulary], bias=bias)

    def with_lora(self, lora: LoraModule) -> Head:
        return replace(self, lora=lora)


def load_head(folder: Path, model: PreTrainedModel, device: str) -> Head:
    """The head that belongs to a headless model: the one in its files, or its own input embeddings.

    Raises `UnsupportedBase` where there is neither.
    """
    config = model.config.get_text_config()
    stored = _stored(folder, () if config.tie_word_embeddings else NAMES)
    weight = stored["weight"] if "weight" in stored else input_embeddings(model)
    if weight.is_meta:  # streamed from its file when the model runs
        weight = _stored(folder, _names_in_files(model, model.get_input_embeddings()))["weight"]
    if weight.shape[1] != config.hidden_size:
        raise UnsupportedBase(f"{folder.name} has no output head for hidden states of {config.hidden_size}.")
    bias = stored.get("bias")
    return Head(
        weight.to(device),
        None if bias is None else bias.to(device),
        float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0),
        getattr(config, "final_logit_softcapping", None),
    )


def input_embeddings(model: PreTrainedModel) -> Tensor:
    """(V, H)."""
    return model.get_input_embeddings().get_parameter("weight")


def _names_in_files(model: PreTrainedModel, module: nn.Module) -> list[str]:
    """What a module of a headless model may be called in the files of the whole."""
    name = next(name for name, each in model.named_modules() if each is module)
    return [f"{model.base_model_prefix}.{name}", f"model.{name}", name]


def _stored(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """What the files hold of the first of these modules that they have, by parameter."""
    places = {name: file for file in sorted(folder.glob("*.safetensors")) for name in read_header(file)}
    module = next((name for name in names if f"{name}.weight" in places), None)
    found = {}
    for part in ("weight", "bias"):
        if (place := places.get(f"{module}.{part}")) is not None:
            with safe_open(place, framework="pt") as file:
                found[part] = file.get_tensor(f"{module}.{part}")
    return found
