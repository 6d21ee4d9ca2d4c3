"""Trains small LoRA adapters on a few examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN_TARGETS
from torch import Tensor, nn

from catalog.tasks.examples import Example
from catalog.tasks.training_config import Recipe
from workers.encoding.resident_base import ResidentBase, load_for_training
from workers.process import cancellation
from workers.tasks.token_rows import IGNORED, Batch, batches, collate, encode

TARGETS = ("q_proj", "v_proj")
GRADIENT_NORM = 1.0


class Trainer:
    """A copy of a base that is trained by adapters: its own weights stay what they are, and it serves one adapter after
    another. On hardware with bfloat16 arithmetic the products run in it; adapters and their optimiser are float32.
    """

    def __init__(self, base: ResidentBase, recipe: Recipe) -> None:
        """Raises what loading the base raises."""
        self._base = base
        self._recipe = recipe
        self._reduced = _has_bfloat16(base.device)
        dtype = "bfloat16" if self._reduced else "float32"
        self._model: Any = load_for_training(base.folder, dtype, base.device).requires_grad_(False)

    def train(
        self,
        examples: Sequence[Example],
        steps: int,
        seed: int,
        folder: Path,
        *,
        on_step: Callable[[int, float], None] | None = None,
    ) -> Path:
        """Leaves an adapter in `folder`, in PEFT's layout, after so many `steps`. Calls `on_step(steps done, loss a
        token in nats)`.

        The same examples and seed give the same adapter on the same machine. Raises `Stopped` between two steps once
        the work is given up (`workers.process.cancellation`).
        """
        recipe, tokenizer = self._recipe, self._base.tokenizer
        rows = [encode(example, tokenizer, recipe.tokens) for example in examples]
        with torch.random.fork_rng(devices=[] if self._base.device == "cpu" else None):
            torch.manual_seed(seed)
            model = self._with_adapter()
        try:
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.0)
            falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / steps)
            for step, part in enumerate(islice(batches(rows, recipe.batch, seed), steps), 1):
                cancellation.check()
                loss = self._loss(collate(part, tokenizer.pad_token_id or 0))
                loss.backward()
                nn.utils.clip_grad_norm_(trained, GRADIENT_NORM)
                optimizer.step()
                falling.step()
                optimizer.zero_grad()
                if on_step:
                    on_step(step, loss.item())
            model.peft_config["default"].base_model_name_or_path = self._base.repo
            # left to find out whether the vocabulary grew, PEFT asks the Hub
            model.save_pretrained(str(folder), save_embedding_layers=False)
        finally:
            self._model = model.unload()
        return folder

    def _with_adapter(self) -> Any:
        config = LoraConfig(
            r=self._recipe.rank,
            lora_alpha=self._recipe.alpha,
            target_modules=_targets(self._model),
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it asks transformers by a name that is going away
            return get_peft_model(self._model, config)

    def _loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy of the outputs' tokens; no other token's logits are computed."""
        device = self._base.device
        ids, mask, labels = (each.to(device) for each in (batch.ids, batch.mask, batch.labels))
        wanted = labels != IGNORED
        keep = wanted[:, 1:].any(dim=0).nonzero().squeeze(1)  # positions before a token with a loss, in any row
        with self._arithmetic():
            logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep).logits
        targets = labels[:, 1:][:, keep]
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        return torch.autocast(torch.device(self._base.device).type, torch.bfloat16) if self._reduced else nullcontext()


def _targets(model: Any) -> Any:
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if names.issuperset(TARGETS):
        return list(TARGETS)
    return KNOWN_TARGETS.get(model.config.model_type, "all-linear")


def _has_bfloat16(device: str) -> bool:
    """Whether it computes in bfloat16, rather than imitate it slowly."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
