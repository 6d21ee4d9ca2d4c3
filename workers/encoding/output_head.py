"""The output head, loaded only when a feature needs logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from catalog.errors import Refused, ShapeMismatch
from workers.encoding.kernels import linear
from workers.encoding.lm_class import causal_lm, head_name, is_tied, logit_factors, stored_tensors
from workers.finetunes.lora_config import LoraModule

ROWS_PER_STEP = 16_384  # of the head, converted to float32 at once
HEAD_NAMES = ("lm_head", "embed_out")  # GPT-NeoX has the second


@dataclass(frozen=True, eq=False)
class Head:
    """The map from hidden states after the final norm to logits, in float32.

    `scale` and `softcap` are applied to logits by some families (Cohere, Granite; Gemma 2, arXiv 2408.00118 section 2).
    `lora` is an adapter's module for the head. `tied` is true if the weight is that of the input embedding.
    """

    weight: Tensor  # (V, H), in any dtype
    bias: Tensor | None = None  # (V,)
    scale: float = 1.0
    softcap: float | None = None
    lora: LoraModule | None = None
    tied: bool = False

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


def load_head(folder: Path, model: PreTrainedModel, device: str, refused: type[Refused]) -> Head:
    """The head of a headless model as transformers would load it from `folder`: the one in its files, or its input
    embeddings if they are tied.

    Raises `refused` if there is none, or none of a form that is known here.
    """
    config = model.config.get_text_config()
    lm = causal_lm(model.config)
    name = (lm and head_name(lm)) or HEAD_NAMES[0]
    stored = stored_tensors(folder, lm or model, [f"{name}.weight", f"{name}.bias"])
    tied = is_tied(lm, name) if lm else getattr(model.config, "tie_word_embeddings", False)
    weight = stored.get(f"{name}.weight")
    if weight is None and not tied:
        raise refused(
            f"There is no output head: the files lack {name}.weight, and the config does not tie it to the embedding. "
            "Features that read logits (delta_logits, delta_meaning) need it: save the whole causal LM."
        )
    if tied:
        embedding = _embedding(folder, model)
        # transformers does not tie weights of different values
        tied = weight is None or torch.equal(weight.to(embedding), embedding)
        weight = embedding if tied else weight
    assert weight is not None
    if weight.shape[1] != config.hidden_size:
        raise refused(f"There is no output head for hidden states of {config.hidden_size} dimensions.")
    factors = logit_factors(lm, name) if lm else (1.0, None)
    if factors is None:
        raise refused(
            f"{model.config.model_type} models compute logits in a way that is not supported: measure hidden states."
        )
    bias = stored.get(f"{name}.bias")
    return Head(weight.to(device), None if bias is None else bias.to(device), *factors, tied=tied)


def input_embeddings(model: PreTrainedModel) -> Tensor:
    """(V, H)."""
    return model.get_input_embeddings().get_parameter("weight")


def _embedding(folder: Path, model: PreTrainedModel) -> Tensor:
    """The input embedding, from its file if it is streamed from there when the model runs."""
    module, weight = model.get_input_embeddings(), input_embeddings(model)
    if not weight.is_meta:
        return weight
    name = next(name for name, other in model.named_modules() if other is module)
    return stored_tensors(folder, model, [f"{name}.weight"])[f"{name}.weight"]
