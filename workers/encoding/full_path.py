"""Full fine-tunes: a separate model, loaded for one forward pass and then released.

It reads the probes in the base's tokens, because the difference of hidden states must be for the same input. A
fine-tune keeps its base's vocabulary or extends it at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from catalog.errors import CatalogError, InvalidModelConfig, NonFiniteWeights, ShapeMismatch, UnsupportedBase
from workers.encoding.forward import PLAIN, ForwardPass, Proof
from workers.encoding.model_loading import DTYPES, clean_view, load_headless, outline
from workers.encoding.module_names import TRY_OTHER_BASE
from workers.encoding.output_head import input_embeddings, load_head
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan, plan_proof
from workers.encoding.trace import Trace
from workers.finetunes.finetune import FineTune
from workers.finetunes.safetensors_file import SUBMIT_FINITE
from workers.process.memory import free_memory, release_unused
from workers.process.scratch import scratch

# compared by name, because a mismatch of them says more than one of a tensor's shape
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")


@dataclass(eq=False)
class FullPath:
    """Encodes full models, one at a time.

    `memory` limits the bytes of one model on the device (None: the free memory); a larger model is streamed from its
    files, layer by layer. The first model of a packed base proves the path, and all run plain if it fails.
    """

    base: ResidentBase
    memory: int | None = None
    proof: Proof | None = None

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """One result for each model, in order."""
        return [self._trace(finetune, plan) for finetune in finetunes]

    def _trace(self, finetune: FineTune, plan: TokenPlan) -> Trace | CatalogError:
        try:
            return self._load_and_run(finetune, plan)
        except UnsupportedBase as error:
            return InvalidModelConfig(str(error))
        except CatalogError as error:
            return error
        finally:
            release_unused()  # hooks and modules form cycles, and the next model needs the memory

    def _load_and_run(self, finetune: FineTune, plan: TokenPlan) -> Trace:
        with clean_view(finetune.folder, finetune.config) as view, scratch() as offload:
            tuned = outline(view, InvalidModelConfig)
            check_architecture(tuned, self.base.model, finetune.shapes, plan)
            dtype, placement = self._placement(finetune, str(offload))
            model = load_headless(view, tuned.config, dtype, InvalidModelConfig, **placement)
            check_finite(model)
            forward = ForwardPass(model, DTYPES[dtype], plain=self.base.forward.is_plain)
            if self.proof is None and not forward.is_plain:
                self.proof = forward.prove(plan_proof(plan))
            with forward.plain() if self.proof and self.proof.path == PLAIN else nullcontext():
                trace = forward.run(plan)[0]
            if not plan.head:
                return trace
            head = load_head(view, model, self.base.device, InvalidModelConfig)
            return replace(trace, head=head.truncate(self.base.head.vocabulary))

    def _placement(self, finetune: FineTune, offload: str) -> tuple[str, dict[str, Any]]:
        """The dtype, and the arguments that place the model on devices when `AutoModel` loads it."""
        parameters = sum(math.prod(shape) for shape in finetune.shapes.values())
        limit = self.memory if self.memory is not None else free_memory(self.base.device)
        if parameters * DTYPES[self.base.dtype].itemsize <= limit:
            return self.base.dtype, {"device_map": {"": self.base.device}}
        # streamed weights keep their stored dtype and bypass the kernels for mixed dtypes
        device = torch.device(self.base.device)
        memory = {"cpu": limit} if device.type == "cpu" else {device.index or 0: limit, "cpu": free_memory("cpu")}
        return "float32", {"device_map": "sequential", "max_memory": memory, "offload_folder": offload}


def check_architecture(
    tuned: PreTrainedModel, base: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]], plan: TokenPlan
) -> None:
    """Raises `ShapeMismatch` if the decoder of a model has other tensors than its base's, except in the sizes of the
    vocabulary and the context, and `InvalidModelConfig` if the model has no embedding for its vocabulary.

    `tuned` has no weights. Settings that change no shape belong to the fine-tune, which runs with its own config.
    """
    tuned_text, base_text = tuned.config.get_text_config(), base.config.get_text_config()
    types = f"The base is a {base_text.model_type} model, and the fine-tune a {tuned_text.model_type} model."
    if tuned_text.model_type != base_text.model_type and not (_is_part(tuned.config) or _is_part(base.config)):
        raise ShapeMismatch(f"{types} {TRY_OTHER_BASE}")
    for name in SIZES:
        tuned_size, base_size = getattr(tuned_text, name, None), getattr(base_text, name, None)
        if type(tuned_size) is type(base_size) is int and tuned_size != base_size:
            raise ShapeMismatch(f"{name} is {base_size} in the base and {tuned_size} in the model. {TRY_OTHER_BASE}")
    if tuple(input_embeddings(tuned).shape) not in shapes.values():
        raise InvalidModelConfig(
            f"The config has a vocabulary of {tuned_text.vocab_size}, but no embedding has that size: set vocab_size "
            "to the number of rows of the embedding."
        )
    _compare(_fixed_shapes(tuned.get_decoder()), _fixed_shapes(base.get_decoder()), types)
    if len(input_embeddings(tuned)) <= int(plan.ids.max()):
        raise ShapeMismatch(
            f"The model's vocabulary of {tuned_text.vocab_size:,} entries is too small for the tokens of the probes. "
            f"{TRY_OTHER_BASE}"
        )


def _is_part(config: PreTrainedConfig) -> bool:
    """Whether a config is of a multimodal model or of its text model, whose type may have another name alone."""
    return config.get_text_config() is not config or config.model_type.endswith("_text")


def _compare(tuned: Mapping[str, tuple[int, ...]], base: Mapping[str, tuple[int, ...]], types: str) -> None:
    for name in sorted(tuned.keys() ^ base.keys()):
        raise ShapeMismatch(
            f"Only the {'base' if name in base else 'fine-tune'} has {name[:120]}. {types} {TRY_OTHER_BASE}"
        )
    for name, shape in tuned.items():
        if shape != base[name]:
            raise ShapeMismatch(
                f"{name[:120]} has the sizes {base[name]} in the base and {shape} in the fine-tune. {TRY_OTHER_BASE}"
            )


def _fixed_shapes(decoder: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters, of embeddings only the width: there may be more tokens or positions."""
    embeddings = {f"{name}.weight" for name, module in decoder.named_modules() if isinstance(module, nn.Embedding)}
    return {
        name: tuple(parameter.shape[1:] if name in embeddings else parameter.shape)
        for name, parameter in decoder.named_parameters()
    }


def check_finite(model: nn.Module) -> None:
    """Raises `NonFiniteWeights`. Streamed weights are not checked: they make the vector non-finite."""
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not torch.isfinite(parameter.sum(dtype=torch.float64)):
            raise NonFiniteWeights(f"{name} holds NaN or infinity. {SUBMIT_FINITE}")
