"""Adapters that are more than A and B: put on the resident base one at a time, run, and taken off again.

What an adapter brings is sorted by its tensors' names (`adapter_parts`). One with the name of a weight of the base
(modules_to_save, trained biases and norms, an enlarged vocabulary) takes that weight's place; low-rank pairs run in
the hooks of plain LoRA; everything else goes into layers that PEFT puts into the base. Afterwards the base gets back
its very own modules and tensors, and its checksum is compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import CatalogError, InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from catalog.errors.root import first_line
from workers.encoding.adapter_parts import Parts, put_weights, sort_parts, tied_embedding
from workers.encoding.guard import BaseGuard, restored
from workers.encoding.lora_path import applied, fit, fit_head
from workers.encoding.output_head import Head
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan
from workers.encoding.trace import Trace, run
from workers.finetunes.finetune import FineTune
from workers.finetunes.lora_config import PREFIX
from workers.finetunes.peft_kinds import expert_settings, feedforward_settings, lora_settings, peft_config


@dataclass(frozen=True, eq=False)
class PeftPath:
    """Encodes every kind of adapter but plain LoRA and prompts, each alone."""

    base: ResidentBase
    guard: BaseGuard

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """One result an adapter, in order; `BaseDisturbed` from the first on that left the base changed."""
        return [self._trace(finetune, plan) for finetune in finetunes]

    def _trace(self, finetune: FineTune, plan: TokenPlan) -> Trace | CatalogError:
        model = self.base.model
        try:
            self.guard.arm()
            parts = sort_parts(finetune, model)
            try:
                with restored(model), attached(parts, finetune, model):
                    _check_vocabulary(model, plan)
                    trace = run(model, plan, 1)[0]
            finally:
                self.guard.check()
            return replace(trace, head=tuned_head(parts, finetune, self.base)) if plan.head else trace
        except CatalogError as error:
            return error
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            if "memory" in str(error):
                raise
            return UnsupportedAdapter(f"The adapter cannot be run on its base: {first_line(error)}")


@contextmanager
def attached(parts: Parts, finetune: FineTune, model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the model is the fine-tuned one. What was exchanged in it is for `restored` to put back.

    Raises `InvalidAdapterConfig`, `ShapeMismatch`, `UnsupportedAdapter`.
    """
    with ExitStack() as stack:
        put_weights(parts, finetune.config, model)
        if parts.hooked:
            stack.enter_context(applied(model, [fit(finetune.modules, model)]))
        if parts.layers:
            _inject(parts, finetune, model)
        yield


def tuned_head(parts: Parts, finetune: FineTune, base: ResidentBase) -> Head | None:
    """The adapter's own output head, as far as the base's vocabulary goes; None where it has the base's.

    Raises `ShapeMismatch`, `UnsupportedAdapter`.
    """
    if parts.head.keys() - {"weight", "bias"}:
        raise UnsupportedAdapter("The adapter changes the output head in a way that cannot be run.")
    own: dict[str, Any] = {name: tensor.to(base.device) for name, tensor in parts.head.items()}
    for name, tensor in own.items():
        if list(tensor.shape[1:]) != ([base.hidden_size] if name == "weight" else []):
            raise ShapeMismatch(f"The output head's {name} is {list(tensor.shape)}; the base has {base.hidden_size}.")
    if not own and (embedding := tied_embedding(parts, finetune.config, base.model)) is not None:
        own = {"weight": embedding}
    head = replace(base.head, **own).cut(base.vocabulary) if own else None
    lora = fit_head(finetune.modules, base) if parts.hooked else None
    return head if lora is None else (head or base.head).with_lora(lora)


def _inject(parts: Parts, finetune: FineTune, model: PreTrainedModel) -> None:
    """Puts PEFT's layers into the model, filled with the adapter's tensors."""
    from peft import PeftModel, set_peft_model_state_dict

    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in parts.targets)
    config = peft_config(finetune.config, parts.targets, transposed, **_derived_settings(parts, finetune, model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice is for whoever trains
        try:
            # on the meta device first: the config's sizes are a claim, and nothing is allocated for it
            tuned = PeftModel(model, config, low_cpu_mem_usage=True)
            tensors = {name: tensor.to(model.device, torch.float32) for name, tensor in parts.layers.items()}
            loaded: Any = set_peft_model_state_dict(tuned, tensors, low_cpu_mem_usage=True)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
            raise InvalidAdapterConfig(f"PEFT cannot build this adapter: {first_line(error)}") from error
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise ShapeMismatch(f"Config, base and tensors do not agree on shapes: {error}"[:400]) from error
    if loaded.unexpected_keys:
        raise InvalidAdapterConfig(f"No part of such an adapter: {', '.join(sorted(loaded.unexpected_keys)[:3])}.")
    missing = [name for name, tensor in (*tuned.named_parameters(), *tuned.named_buffers()) if tensor.is_meta]
    if missing:
        raise InvalidAdapterConfig(f"The adapter's weights lack {', '.join(missing[:3])}.")
    tuned.eval()


def _derived_settings(parts: Parts, finetune: FineTune, model: PreTrainedModel) -> dict[str, Any]:
    """What PEFT is told beyond the config's own words."""
    peft_type = finetune.config["peft_type"]
    if peft_type == "LORA" and (parts.experts or not finetune.modules):
        names = (name for name, _ in model.named_parameters())
        return expert_settings(finetune.config, {*parts.targets, *parts.experts}, names)
    if finetune.modules:
        return lora_settings(fit(finetune.modules, model))
    if peft_type == "IA3":
        return feedforward_settings({name: parts.layers.get(f"{PREFIX}{name}.ia3_l") for name in parts.targets})
    return {}


def _check_vocabulary(model: PreTrainedModel, plan: TokenPlan) -> None:
    embeddings: Any = model.get_input_embeddings()
    size = embeddings.weight.shape[0]
    if size <= int(plan.ids.max()):
        raise ShapeMismatch(f"The fine-tune's vocabulary has {size:,} entries, fewer than the probes' tokens need.")
