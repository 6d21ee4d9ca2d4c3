"""Adapters that consist of more than low-rank pairs: each is applied to the resident base, run, and removed again.

An adapter's tensors are sorted by their names (`adapter_parts`). A tensor with the name of a weight of the base
(modules_to_save, trained biases and norms, an enlarged vocabulary) replaces that weight; low-rank pairs run in the
hooks of plain LoRA; all others go into layers that PEFT injects into the base. Afterwards the base's original modules
and tensors are restored, and its checksum is compared.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from catalog.errors import CatalogError, InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from catalog.errors.root import first_line
from workers.encoding.adapter_parts import AdapterParts, replace_weights, sort_tensors, tied_embedding
from workers.encoding.guard import BaseGuard, restored
from workers.encoding.lora_path import applied, fit, fit_head
from workers.encoding.module_names import TRY_OTHER_BASE
from workers.encoding.output_head import Head
from workers.encoding.parameter_lora import changed_parameters
from workers.encoding.resident_base import ResidentBase
from workers.encoding.token_plan import TokenPlan
from workers.encoding.trace import Trace
from workers.finetunes.finetune import FineTune
from workers.finetunes.lora_config import PEFT_PREFIX, LoraModule
from workers.finetunes.peft_kinds import feedforward_settings, lora_settings, peft_config

UNKNOWN_TYPE = "of-an-adapter"
# tensors of LoRA and DoRA within a module
FACTORS, MAGNITUDE = frozenset({"lora_A", "lora_A.weight", "lora_B", "lora_B.weight"}), "lora_magnitude_vector"

_SIZE_MISMATCH = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)")


@dataclass(frozen=True, eq=False)
class PeftPath:
    """Encodes all kinds of adapters except plain LoRA and prompts, one at a time."""

    base: ResidentBase
    guard: BaseGuard

    def traces(self, finetunes: Sequence[FineTune], plan: TokenPlan) -> list[Trace | CatalogError]:
        """One result for each adapter, in order: `BaseModelCorrupted` from the first that modified the base."""
        return [self._trace(finetune, plan) for finetune in finetunes]

    def _trace(self, finetune: FineTune, plan: TokenPlan) -> Trace | CatalogError:
        model = self.base.model
        try:
            self.guard.arm()
            parts = sort_tensors(finetune, model, hooks=not self.base.forward.is_plain)
            try:
                with restored(model), attached(parts, finetune, model):
                    _check_vocabulary(model, plan)
                    trace = self.base.forward.run(plan)[0]
            finally:
                self.guard.check()
            head = tuned_head(parts, finetune, self.base) if plan.head else None
            return replace(trace, head=head, notes=(*trace.notes, *parts.notes))
        except CatalogError as error:
            return error
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            if "memory" in str(error):
                raise
            return UnsupportedAdapter(f"The adapter cannot be run on its base: {first_line(error)}")


@contextmanager
def attached(parts: AdapterParts, finetune: FineTune, model: PreTrainedModel) -> Iterator[None]:
    """Within the context, the model is the fine-tuned one. `restored` must undo the replacements.

    Raises `InvalidAdapterConfig`, `ShapeMismatch`, `UnsupportedAdapter`.
    """
    with ExitStack() as stack:
        replace_weights(parts, model)
        stack.enter_context(changed_parameters(model, parts.pairs.parameters))
        if parts.hooked:
            stack.enter_context(applied(model, [fit(parts.pairs.layers, model)]))
        if parts.layers:
            _inject(parts, finetune, model)
        yield


def tuned_head(parts: AdapterParts, finetune: FineTune, base: ResidentBase) -> Head | None:
    """The adapter's output head for the base's vocabulary; None if the adapter does not change it.

    Raises `ShapeMismatch`, `UnsupportedAdapter`.
    """
    head_tensors: dict[str, Any] = {name: tensor.to(base.device) for name, tensor in parts.head.items()}
    magnitude = next((head_tensors.pop(name) for name in parts.head if name.startswith(MAGNITUDE)), None)
    if magnitude is not None and (lora := fit_head(finetune.modules, base)):
        head_tensors = {name: tensor for name, tensor in head_tensors.items() if name not in FACTORS}
        head_tensors["weight"] = _dora(base.head.weight, lora, magnitude)
    if other := sorted(head_tensors.keys() - {"weight", "bias"}):
        raise UnsupportedAdapter(
            f"The adapter changes the output head by {other[0][:120]}, and features of logits (delta_logits, "
            "delta_meaning) read whole weights, LoRA and DoRA there only: use a feature of hidden states, or submit "
            "the merged model."
        )
    for name, tensor in head_tensors.items():
        if list(tensor.shape[1:]) != ([base.hidden_size] if name == "weight" else []):
            raise ShapeMismatch(
                f"The output head's {name} is {list(tensor.shape)}; the base has {base.hidden_size}. {TRY_OTHER_BASE}"
            )
    if parts.head_rows:
        head_tensors["weight"] = parts.head_rows[-1].replaced(head_tensors.get("weight", base.head.weight))
    elif not head_tensors and base.head.tied:
        embedding = tied_embedding(parts, finetune.config, base.model)
        head_tensors = {} if embedding is None else {"weight": embedding}
    head = replace(base.head, **head_tensors).truncate(base.head.vocabulary) if head_tensors else None
    lora = fit_head(finetune.modules, base) if parts.plain_lora else None
    return head if lora is None else (head or base.head).with_lora(lora)


def _dora(weight: Tensor, lora: LoraModule, magnitude: Tensor) -> Tensor:
    """The head's weight, (V, H), with DoRA (arXiv 2402.09353 section 4.1): the rows of `W + scale * B A` with the
    lengths `magnitude`.
    """
    change = lora.b.to(weight.device).float() @ lora.a.to(weight.device).float()
    changed = weight.float() + lora.scale * change
    return (changed * (magnitude.float() / changed.norm(dim=1))[:, None]).to(weight.dtype)


def _inject(parts: AdapterParts, finetune: FineTune, model: PreTrainedModel) -> None:
    """Inject PEFT's layers into the model and load the adapter's tensors."""
    from peft import PeftModel, set_peft_model_state_dict

    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in parts.targets)
    config = peft_config(finetune.config, parts.targets, transposed, **_derived_settings(parts, finetune, model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's warnings concern training
        try:
            # on the meta device first: the sizes in the config are untrusted, so nothing is allocated for them
            with _unknown_type(model):
                tuned = PeftModel(model, config, low_cpu_mem_usage=True)
                tensors = {name: tensor.to(model.device, torch.float32) for name, tensor in parts.layers.items()}
                loaded: Any = set_peft_model_state_dict(tuned, tensors, low_cpu_mem_usage=True)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
            raise InvalidAdapterConfig(f"PEFT cannot build this adapter: {first_line(error)}") from error
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise ShapeMismatch(_size_mismatch(str(error))) from error
    if loaded.unexpected_keys:
        raise InvalidAdapterConfig(
            f"{min(loaded.unexpected_keys)[:120]} is no tensor of a {finetune.config['peft_type']} adapter with this "
            "config: write the settings of the training into adapter_config.json, or save it again with PEFT's "
            "save_pretrained."
        )
    missing = [name for name, tensor in (*tuned.named_parameters(), *tuned.named_buffers()) if tensor.is_meta]
    if missing:
        raise InvalidAdapterConfig(
            f"The file lacks tensors that a {finetune.config['peft_type']} adapter with this config has, such as "
            f"{missing[0][:120]}: save the adapter again with PEFT's save_pretrained."
        )
    tuned.eval()


@contextmanager
def _unknown_type(model: PreTrainedModel) -> Iterator[None]:
    """Within the context, PEFT does not know the model's type, and changes no names by its table of types: names are
    those of the model already, and PEFT takes any layer `gate_proj` for one of the experts.
    """
    config, renamed = model.config, copy.copy(model.config)
    setattr(renamed, "model_type", UNKNOWN_TYPE)  # noqa: B010  (a class variable in the annotations alone)
    model.config = renamed
    try:
        yield
    finally:
        model.config = config


def _size_mismatch(message: str) -> str:
    """The first tensor of torch's error, and what to do."""
    what = "The shapes of the tensors do not fit the config and the base"
    if match := _SIZE_MISMATCH.search(message):
        what = f"{match[1][:120]} is {match[2][:80]} in the file, and {match[3][:80]} by the config and the base"
    return f"{what}: submit the adapter with the config and the base that it was trained with."


def _derived_settings(parts: AdapterParts, finetune: FineTune, model: PreTrainedModel) -> dict[str, Any]:
    """Settings for PEFT that are derived from tensors and base."""
    peft_type = finetune.config["peft_type"]
    if parts.pairs.layers:
        return lora_settings(fit(parts.pairs.layers, model))
    if peft_type == "IA3":
        return feedforward_settings({name: parts.layers.get(f"{PEFT_PREFIX}{name}.ia3_l") for name in parts.targets})
    return {}


def _check_vocabulary(model: PreTrainedModel, plan: TokenPlan) -> None:
    embeddings: Any = model.get_input_embeddings()
    size = embeddings.weight.shape[0]
    if size <= int(plan.ids.max()):
        raise ShapeMismatch(
            f"The fine-tune's vocabulary of {size:,} entries is too small for the tokens of the probes. "
            f"{TRY_OTHER_BASE}"
        )
