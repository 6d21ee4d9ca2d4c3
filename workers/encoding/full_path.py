"""Full fine-tunes: a model of its own beside the base, loaded for one forward and let go.

It reads the probes in the base's tokens: a difference of hidden states is one of the same input, and what was trained
further keeps its base's vocabulary, or adds to its end.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import get_max_memory
from torch import nn
from transformers import PreTrainedConfig

from catalog.errors import CatalogError, InvalidModelConfig, NonFiniteWeights, ShapeMismatch, UnsupportedBase
from workers.encoding.model_loading import DTYPES, clean_view, load_config, load_headless
from workers.encoding.output_head import load_head
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan
from workers.encoding.trace import Trace, run
from workers.finetunes.finetune import FineTune
from workers.process.scratch import scratch

# whole numbers in which a fine-tune may differ from its base; all others are the architecture
FREE = ("token_id", "vocab_size", "max_position", "window", "pretraining_tp", "num_logits_to_keep")


@dataclass(frozen=True, eq=False)
class FullPath:
    """Encodes full models, each alone.

    `memory` is what one may take of the device, in bytes (None: what is free); what goes beyond is streamed from its
    files, layer by layer.
    """

    base: ResidentBase
    memory: int | None = None

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """One result a model, in order."""
        return [self._trace(finetune, plan) for finetune in finetunes]

    def _trace(self, finetune: FineTune, plan: TokenPlan) -> Trace | CatalogError:
        try:
            return self._loaded_and_run(finetune, plan)
        except UnsupportedBase as error:
            return InvalidModelConfig(str(error))
        except CatalogError as error:
            return error
        finally:
            gc.collect()  # hooks and modules hold each other; the next model needs the room
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _loaded_and_run(self, finetune: FineTune, plan: TokenPlan) -> Trace:
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
            trace = run(model, plan, 1)[0]
            if not plan.head:
                return trace
            head = load_head(view, model, self.base.device)
            return replace(trace, head=head.cut(self.base.vocabulary))

    def _placement(self, finetune: FineTune, offload: str) -> tuple[str, dict[str, Any]]:
        """dtype, and where `AutoModel` puts what."""
        numbers = sum(math.prod(shape) for shape in finetune.shapes.values())
        limits = {str(device): room for device, room in get_max_memory().items()}
        room = self.memory if self.memory is not None else limits.get(self._device, 0)
        if numbers * DTYPES[self.base.dtype].itemsize <= room:
            return self.base.dtype, {"device_map": {"": self.base.device}}
        # streamed weights come as they are stored, past the kernels that mix dtypes
        here: int | str = self._device if self._device == "cpu" else int(self._device)
        memory = {here: room, "cpu": limits["cpu"]} if here != "cpu" else {"cpu": room}
        return "float32", {"device_map": "sequential", "max_memory": memory, "offload_folder": offload}

    @property
    def _device(self) -> str:
        """As accelerate names it: "cpu", or the number of a GPU."""
        device = torch.device(self.base.device)
        return "cpu" if device.type == "cpu" else str(device.index or 0)


def check_architecture(
    own: PreTrainedConfig, base: PreTrainedConfig, shapes: Mapping[str, tuple[int, ...]], plan: TokenPlan
) -> None:
    """Raises `ShapeMismatch` where a model is not built like its base; another size of vocabulary is no matter."""
    if own.model_type != base.model_type:
        raise ShapeMismatch(f"The base is a {base.model_type} model, and this is a {own.model_type} one.")
    mine, theirs = own.get_text_config().to_dict(), base.get_text_config().to_dict()
    for name, value in theirs.items():
        whole = type(value) is int and not any(free in name for free in FREE)
        if whole and mine.get(name) != value:
            raise ShapeMismatch(f"{name} is {value} in the base and {str(mine.get(name))[:40]} in the model.")
    vocabulary = own.get_text_config().vocab_size
    if (vocabulary, base.get_text_config().hidden_size) not in shapes.values():
        raise InvalidModelConfig(f"The config says a vocabulary of {vocabulary}, and no embedding has that size.")
    if vocabulary <= int(plan.ids.max()):
        raise ShapeMismatch(f"The model's vocabulary has {vocabulary:,} entries, fewer than the probes' tokens need.")


def check_finite(model: nn.Module) -> None:
    """Raises `NonFiniteWeights`; weights that are streamed show theirs in the vector."""
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not torch.isfinite(parameter.sum(dtype=torch.float64)):
            raise NonFiniteWeights(f"{name} holds NaN or infinity.")
