"""Full fine-tunes: a separate model, loaded for one forward pass and then released.

It reads the probes in the base's tokens, because the difference of hidden states must be for the same input. A
fine-tune keeps its base's vocabulary or extends it at the end.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import get_max_memory
from torch import nn
from transformers import PreTrainedConfig

from catalog.errors import CatalogError, InvalidModelConfig, NonFiniteWeights, ShapeMismatch, UnsupportedBase
from workers.encoding.forward import PLAIN, ForwardPass, Proof
from workers.encoding.model_loading import DTYPES, clean_view, load_config, load_headless
from workers.encoding.output_head import load_head
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan, plan_proof
from workers.encoding.trace import Trace
from workers.finetunes.finetune import FineTune
from workers.process.scratch import scratch

# integer settings in which a fine-tune may differ from its base; all others are the architecture
FREE_SETTINGS = ("token_id", "vocab_size", "max_position", "window", "pretraining_tp", "num_logits_to_keep")


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
            gc.collect()  # hooks and modules form cycles, and the next model needs the memory
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _load_and_run(self, finetune: FineTune, plan: TokenPlan) -> Trace:
        names = [path.name for path in finetune.folder.iterdir()]
        with (
            clean_view(finetune.folder, names, finetune.config) as view,
            scratch() as offload,
        ):
            config = load_config(view, finetune.shapes, InvalidModelConfig)
            check_architecture(config, self.base.model.config, finetune.shapes, plan)
            dtype, placement = self._placement(finetune, str(offload))
            model = load_headless(view, config, dtype, InvalidModelConfig, **placement)
            check_finite(model)
            forward = ForwardPass(model, DTYPES[dtype], plain=self.base.forward.is_plain)
            if self.proof is None and not forward.is_plain:
                self.proof = forward.prove(plan_proof(plan))
            with forward.plain() if self.proof and self.proof.path == PLAIN else nullcontext():
                trace = forward.run(plan)[0]
            if not plan.head:
                return trace
            head = load_head(view, model, self.base.device)
            return replace(trace, head=head.truncate(self.base.vocabulary))

    def _placement(self, finetune: FineTune, offload: str) -> tuple[str, dict[str, Any]]:
        """The dtype, and the arguments that place the model on devices when `AutoModel` loads it."""
        parameters = sum(math.prod(shape) for shape in finetune.shapes.values())
        free_bytes = {str(device): size for device, size in get_max_memory().items()}
        limit = self.memory if self.memory is not None else free_bytes.get(self._device, 0)
        if parameters * DTYPES[self.base.dtype].itemsize <= limit:
            return self.base.dtype, {"device_map": {"": self.base.device}}
        # streamed weights keep their stored dtype and bypass the kernels for mixed dtypes
        first_device: int | str = self._device if self._device == "cpu" else int(self._device)
        memory = {first_device: limit, "cpu": free_bytes["cpu"]} if first_device != "cpu" else {"cpu": limit}
        return "float32", {"device_map": "sequential", "max_memory": memory, "offload_folder": offload}

    @property
    def _device(self) -> str:
        """The device as accelerate names it: "cpu", or the number of a GPU."""
        device = torch.device(self.base.device)
        return "cpu" if device.type == "cpu" else str(device.index or 0)


def check_architecture(
    tuned: PreTrainedConfig, base: PreTrainedConfig, shapes: Mapping[str, tuple[int, ...]], plan: TokenPlan
) -> None:
    """Raises `ShapeMismatch` if the architecture of a model differs from its base's, except in the vocabulary size, and
    `InvalidModelConfig` if the model has no embedding for its vocabulary.
    """
    if tuned.model_type != base.model_type:
        raise ShapeMismatch(f"The base is a {base.model_type} model, and the fine-tune a {tuned.model_type} model.")
    tuned_settings, base_settings = tuned.get_text_config().to_dict(), base.get_text_config().to_dict()
    for name, value in base_settings.items():
        fixed = type(value) is int and not any(name_part in name for name_part in FREE_SETTINGS)
        if fixed and tuned_settings.get(name) != value:
            raise ShapeMismatch(f"{name} is {value} in the base and {str(tuned_settings.get(name))[:40]} in the model.")
    vocabulary = tuned.get_text_config().vocab_size
    if (vocabulary, base.get_text_config().hidden_size) not in shapes.values():
        raise InvalidModelConfig(f"The config has a vocabulary of {vocabulary}, but no embedding has that size.")
    if vocabulary <= int(plan.ids.max()):
        raise ShapeMismatch(
            f"The model's vocabulary of {vocabulary:,} entries is too small for the tokens of the probes."
        )


def check_finite(model: nn.Module) -> None:
    """Raises `NonFiniteWeights`. Streamed weights are not checked: they make the vector non-finite."""
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not torch.isfinite(parameter.sum(dtype=torch.float64)):
            raise NonFiniteWeights(f"{name} holds NaN or infinity.")
