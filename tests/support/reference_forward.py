"""Tiny bases and fine-tunes of transformers' model types, with their vectors by transformers' and PEFT's own forward.

`python -m tests.support.reference_forward FOLDER PROMPTS.json NAME...` imports nothing of the product. A name is a key
of `tests/support/architectures.py`, with a colon and PEFT kinds after it, if any: `lfm2:dora,ia3`. For each name, the
folders `base`, `lora`, `other` (a second LoRA), `full` and one for each kind are written to `FOLDER/NAME`, with
`expected.npz` next to them, and a line of JSON is printed when they are complete.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from tests.support.architectures import auto_class, tiny_config

MIDDLE_DEPTH = 0.4  # of the layers, where the feature delta_layers reads
PRODUCT = ("app", "catalog", "workers")
MAX_REASON = 300
TASK = "CAUSAL_LM"
VIRTUAL_TOKENS = 3

Tables = dict[str, Tensor]  # by layer, (N, H) each
MakeConfig = Callable[[list[str]], peft.PeftConfig]


def lora(targets: list[str]) -> peft.PeftConfig:
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type=TASK)


KINDS: dict[str, MakeConfig] = {
    "dora": lambda targets: peft.LoraConfig(r=4, target_modules=targets, use_dora=True, task_type=TASK),
    "ia3": lambda targets: peft.IA3Config(target_modules=targets, feedforward_modules=targets[-1:], task_type=TASK),
    "loha": lambda targets: peft.LoHaConfig(r=4, target_modules=targets, task_type=TASK),
    "prompt_tuning": lambda targets: peft.PromptTuningConfig(
        num_virtual_tokens=VIRTUAL_TOKENS,
        num_attention_heads=1,
        task_type=TASK,  # which Mamba's config does not have
    ),
    "prefix_tuning": lambda targets: peft.PrefixTuningConfig(num_virtual_tokens=VIRTUAL_TOKENS, task_type=TASK),
}


def main(folder: Path, prompts: Sequence[str], names: Sequence[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    for name in names:
        model_type, _, kinds = name.partition(":")
        reasons = make(folder / model_type, model_type, prompts, kinds.split(",") if kinds else [])
        assert not [package for package in PRODUCT if package in sys.modules]
        print(json.dumps({"type": model_type, "reasons": reasons}), flush=True)


def make(folder: Path, name: str, prompts: Sequence[str], kinds: Sequence[str]) -> dict[str, str]:
    """Make one model and its fine-tunes. Returns the reasons why some of them cannot be made."""
    made = "base"
    try:
        reference = Reference(folder, name, prompts)
        made = "forward"  # some models do not read text alone
        return reference.write(kinds)
    except Exception as error:
        return {made: _reason(error)}


class Reference:
    """A base of one type and its fine-tunes."""

    def __init__(self, folder: Path, model_type: str, prompts: Sequence[str]) -> None:
        self.folder = folder
        self.auto_class = auto_class(model_type)
        self.prompts = [torch.tensor([byte_tokenizer()(prompt)["input_ids"]]) for prompt in prompts]
        torch.manual_seed(0)
        model = self.auto_class.from_config(tiny_config(model_type), attn_implementation="eager")
        disturb(model, seed=0, scale=0.1)
        model.save_pretrained(folder / "base")
        byte_tokenizer().save_pretrained(folder / "base")
        self.base: PreTrainedModel = self.load("base")

    def write(self, kinds: Sequence[str]) -> dict[str, str]:
        """Write the fine-tunes and their vectors. Returns the reasons why some cannot be made, by name."""
        base, targets = self.tables(self.base), self.linear_modules()
        expected: dict[str, np.ndarray] = {}
        reasons: dict[str, str] = {}
        for name, make in self._finetunes(kinds, targets):
            try:
                tuned = self.tables(make())
                expected[name] = (tuned["final"] - base["final"]).mean(dim=0).numpy()
                expected[f"{name}_layers"] = both_layers(tuned, base)
            except Exception as error:  # a kind that PEFT does not support for this type
                reasons[name] = _reason(error)
        np.savez(self.folder / "expected.npz", **expected)
        return reasons

    def _finetunes(self, kinds: Sequence[str], targets: list[str]) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
        without_experts = [target for target in targets if "expert" not in target]
        yield "full", self.full
        yield "lora", lambda: self.adapter("lora", lora(targets), seed=3)
        yield "other", lambda: self.adapter("other", lora(targets), seed=4)
        for kind in kinds:
            # PEFT would turn modules of shared experts into parameters, which these kinds do not support
            yield kind, lambda kind=kind: self.adapter(kind, KINDS[kind](without_experts), seed=5)

    def adapter(self, name: str, config: peft.PeftConfig, *, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        tuned = peft.get_peft_model(copy.deepcopy(self.base), config)
        disturb(tuned, seed, scale=0.3, trainable=True)
        tuned.save_pretrained(self.folder / name)
        return tuned

    def full(self) -> nn.Module:
        model = copy.deepcopy(self.base)
        disturb(model, seed=7, scale=0.05)
        model.save_pretrained(self.folder / "full")
        return self.load("full")

    def load(self, name: str) -> PreTrainedModel:
        return self.auto_class.from_pretrained(
            self.folder / name, dtype=torch.float32, local_files_only=True, attn_implementation="eager"
        ).eval()

    def tables(self, model: nn.Module) -> Tables:
        """The last token's hidden states of each prompt, which runs alone, at both layers of `delta_layers`."""
        rows: dict[str, list[Tensor]] = {"middle": [], "final": []}
        for ids in self.prompts:
            states, final = hidden_states(model.eval(), ids)
            rows["middle"].append(self.one_stream(states[round(MIDDLE_DEPTH * (len(states) - 1))])[0, -1])
            rows["final"].append(final[0, -1])
        tables = {layer: torch.stack(states) for layer, states in rows.items()}
        if not all(table.isfinite().all() for table in tables.values()):
            raise ValueError("The hidden states are not finite.")
        return tables

    def one_stream(self, state: Tensor) -> Tensor:
        """The active stream of Gemma 3n, (S, 1, T, H), or the mean of those of hyper-connections, (1, T, S, H) or
        (1, T, S * H).
        """
        config = self.base.config.get_text_config(decoder=True)
        if hasattr(config, "altup_active_idx"):
            return state[config.altup_active_idx]
        return state.reshape(*state.shape[:2], -1, config.hidden_size).mean(dim=2)

    def linear_modules(self) -> list[str]:
        """The full names of the linear modules in layers that run for text and that PEFT can change."""
        called: set[nn.Module] = set()
        linear = {
            name: module
            for name, module in self.base.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and any(part.isdigit() for part in name.split("."))
        }

        def call(module: nn.Module, args: Any, output: Any) -> None:
            # neither routers, which return several tensors, nor projections in groups, which PEFT cannot change
            if isinstance(output, Tensor) and (isinstance(module, Conv1D) or output.shape[-1] == module.out_features):
                called.add(module)

        handles = [module.register_forward_hook(call) for module in linear.values()]
        hidden_states(self.base, max(self.prompts, key=torch.numel))
        for handle in handles:
            handle.remove()
        targets = [name for name, module in linear.items() if module in called]
        try:
            peft.get_peft_model(copy.deepcopy(self.base), lora(targets))
        except ValueError:  # PEFT refuses the output projections of Mamba, which fast kernels do not call
            return [name for name in targets if not name.endswith("out_proj")]
        return targets


def hidden_states(model: nn.Module, ids: Tensor) -> tuple[Sequence[Tensor], Tensor]:
    """`hidden_states`, and the last of them, or `last_hidden_state` where only that merges several streams."""
    captured: list[Tensor] = []

    def capture(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(getattr(output, "last_hidden_state", None), Tensor):
            captured.append(output.last_hidden_state)

    pretrained = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    handles = [module.register_forward_hook(capture) for module in pretrained]
    mask = torch.ones_like(ids)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    for handle in handles:
        handle.remove()
    states = output.hidden_states
    return states, states[-1] if states[-1].ndim == 3 else captured[-1]


def both_layers(tuned: Tables, base: Tables) -> np.ndarray:
    """The vector of `delta_layers`: the shift at each layer, divided by the norm of the base's mean state there."""
    layers = ("middle", "final")
    return torch.cat(
        [(tuned[layer] - base[layer]).mean(dim=0) / base[layer].mean(dim=0).norm() for layer in layers]
    ).numpy()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<s>": 0, "</s>": 1}
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[character] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def disturb(model: nn.Module, seed: int, *, scale: float, trainable: bool = False) -> None:
    """Add noise to every parameter or every trainable one: norms and biases are initialized to ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and (parameter.requires_grad or not trainable):
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_REASON]


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3:])
