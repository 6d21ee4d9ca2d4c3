"""The output head, loaded only when a feature needs logits."""

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

ROWS_PER_STEP = 16_384  # of the head, converted to float32 at once
HEAD_NAMES = ("lm_head", "embed_out")  # GPT-NeoX has the second


@dataclass(frozen=True, eq=False)
class Head:
    """The map from hidden states after the final norm to logits, in float32.

    `scale` and `softcap` are applied to logits by some families (Cohere, Granite; Gemma 2, arXiv 2408.00118 section 2).
    `lora` is an adapter's module for the head.
    """

    weight: Tensor  # (V, H), in any dtype
    bias: Tensor | None = None  # (V,)
    scale: float = 1.0
    softcap: float | None = None
    lora: LoraModule | None = None

    @property
    def vocabulary(self) -> int:
        return len(self.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """(M, H) -> (M, V)."""
        # converted to float32 in steps: the whole head can be as large as the model
        logits = torch.cat([linear(hidden, rows.float()) for rows in self.weight.split(ROWS_PER_STEP)], dim=-1)
        if self.lora is not None:
            a, b = (factor.to(hidden.device, hidden.dtype) for factor in (self.lora.a, self.lora.b))
            logits += hidden @ a.T @ b.T * self.lora.scale
        if self.bias is not None:
            logits += self.bias.to(logits.dtype)
        logits *= self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def approximate_logits(self, hidden: Tensor) -> Tensor:
        """The linear part without LoRA, bias and scale, (M, H) -> (M, V), in the precision of the weights."""
        return (hidden.to(self.weight.dtype) @ self.weight.T).float()

    def truncate(self, vocabulary: int) -> Head:
        """The head for the first `vocabulary` tokens. Raises `ShapeMismatch` if it has fewer."""
        if self.vocabulary < vocabulary:
            raise ShapeMismatch(
                f"The fine-tune's output head has only {self.vocabulary:,} tokens and its base {vocabulary:,}, "
                "and features of logits compare each of them. Use a feature of hidden states, such as "
                "delta_activations, or submit a fine-tune with the vocabulary of its base."
            )
        bias = None if self.bias is None else self.bias[:vocabulary]
        return replace(self, weight=self.weight[:vocabulary], bias=bias)

    def with_lora(self, lora: LoraModule) -> Head:
        return replace(self, lora=lora)


def load_head(folder: Path, model: PreTrainedModel, device: str) -> Head:
    """The head of a headless model: the one in its files, or its input embeddings if they are tied or there is none.

    Raises `UnsupportedBase` if its width does not fit.
    """
    config = model.config.get_text_config()
    stored = _stored_tensors(folder, () if config.tie_word_embeddings else HEAD_NAMES)
    weight = stored["weight"] if "weight" in stored else input_embeddings(model)
    if weight.is_meta:  # it is streamed from its file when the model runs
        weight = _stored_tensors(folder, _names_in_files(model, model.get_input_embeddings()))["weight"]
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
    """The possible names of a headless model's module in the files of the causal LM."""
    name = next(name for name, other in model.named_modules() if other is module)
    return [f"{model.base_model_prefix}.{name}", f"model.{name}", name]


def _stored_tensors(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of the first of these modules that the files have, by parameter."""
    file_of = {name: file for file in sorted(folder.glob("*.safetensors")) for name in read_header(file)}
    module = next((name for name in names if f"{name}.weight" in file_of), None)
    tensors = {}
    for part in ("weight", "bias"):
        if (path := file_of.get(f"{module}.{part}")) is not None:
            with safe_open(path, framework="pt") as file:
                tensors[part] = file.get_tensor(f"{module}.{part}")
    return tensors
