"""Training of small LoRA adapters on a few examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS
from torch import Tensor, nn

from catalog.tasks.examples import Example
from catalog.tasks.training_config import TrainingConfig
from workers.encoding.resident_base import ResidentBase, load_for_training
from workers.process import cancellation
from workers.tasks.token_rows import IGNORED, Batch, batches, collate, encode

TARGETS = ("q_proj", "v_proj")
MAX_GRADIENT_NORM = 1.0


class Trainer:
    """Trains one adapter after another on a copy of a base, whose own weights do not change. The copy is in bfloat16
    where the hardware supports it; adapters and their optimizer are always in float32.
    """

    def __init__(self, base: ResidentBase, config: TrainingConfig) -> None:
        """Raises what `load_for_training` raises."""
        self._base = base
        self._config = config
        self._bfloat16 = _supports_bfloat16(base.device)
        dtype = "bfloat16" if self._bfloat16 else "float32"
        self._model: Any = load_for_training(base, dtype).requires_grad_(False)

    def train(
        self,
        examples: Sequence[Example],
        steps: int,
        seed: int,
        folder: Path,
        *,
        on_step: Callable[[int, float], None] | None = None,
    ) -> Path:
        """Train an adapter and save it to `folder` in PEFT's layout. Calls `on_step` after each step, with the number
        of steps done and the loss in nats per token.

        The same examples and seed give the same adapter on the same machine. Raises `Cancelled` between two steps.
        """
        config, tokenizer = self._config, self._base.tokenizer
        rows = [encode(example, tokenizer, config.max_tokens) for example in examples]
        with torch.random.fork_rng(devices=[] if self._base.device == "cpu" else None):
            torch.manual_seed(seed)
            model = self._with_adapter()
        try:
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / steps)
            for step, batch in enumerate(islice(batches(rows, config.batch_size, seed), steps), 1):
                cancellation.raise_if_cancelled()
                loss = self._loss(collate(batch, tokenizer.pad_token_id or 0))
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                if on_step:
                    on_step(step, loss.item())
            model.peft_config["default"].base_model_name_or_path = self._base.repo
            # with the default, PEFT asks the Hub whether the vocabulary was resized
            model.save_pretrained(str(folder), save_embedding_layers=False)
        finally:
            self._model = model.unload()
        return folder

    def _with_adapter(self) -> Any:
        config = LoraConfig(
            r=self._config.rank,
            lora_alpha=self._config.alpha,
            target_modules=_target_modules(self._model),
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a deprecated name of transformers
            return get_peft_model(self._model, config)

    def _loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy of the output tokens. Logits are computed only at positions that predict one."""
        device = self._base.device
        ids, mask, labels = (tensor.to(device) for tensor in (batch.ids, batch.mask, batch.labels))
        has_loss = labels != IGNORED
        keep = has_loss[:, 1:].any(dim=0).nonzero().squeeze(1)  # positions before a token with a loss, in any row
        with self._autocast():
            logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep).logits
        targets = labels[:, 1:][:, keep]
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(torch.device(self._base.device).type, torch.bfloat16) if self._bfloat16 else nullcontext()


def _target_modules(model: Any) -> Any:
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if names.issuperset(TARGETS):
        return list(TARGETS)
    return DEFAULT_TARGETS.get(model.config.model_type, "all-linear")


def _supports_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 natively, without a slow emulation."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
