"""The forward pass of a model: packed where that gives the states of the plain one, which is measured and not assumed.

The packed forward pass (`packed_forward`) is several times faster, and depends on how a model's class computes: its
attention must be replaceable, and no layer may mix tokens in another way. The plain forward pass (`plain_forward`) is
the published procedure itself. So a model proves itself before it runs packed: both run the same prompts, and their
states are compared at every layer that a feature reads.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from catalog.errors import CatalogError, UnsupportedBase
from catalog.errors.root import first_line
from workers.encoding import kernels, packed_forward, packing, plain_forward
from workers.encoding.decoder import WHAT_TO_DO
from workers.encoding.plain_forward import VirtualTokens
from workers.encoding.token_plan import PROMPT, TokenPlan
from workers.encoding.trace import Trace
from workers.process.cancellation import Cancelled

PACKED, PLAIN = "packed", "plain"
MAX_RELATIVE_ERROR = 1e-4  # of a token's state; rounding in float32 stays below 1e-5
MAX_CAUSAL_ERROR = 1e-3  # of a token's state when a later token is appended; encoders are far above
NEIGHBOR_NOISE = 0.5  # of a perturbed neighbor's embeddings, relative to their standard deviation
NEIGHBOR_SEED = 0
OWN_ATTENTION = "eager"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proof:
    """Which path a model runs on, and why.

    `error` is the largest relative error of a state on the packed path; None if it did not run. `reason` says why the
    model runs on the plain path.
    """

    path: str
    error: float | None
    reason: str = ""


class ForwardPass:
    """The forward pass of one model, which is packed unless `plain` is set. `prove` says whether it may stay so."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype, *, plain: bool = False) -> None:
        """`dtype` is the one that the model was loaded in."""
        self.model = model
        self.is_plain = plain
        self._dtype = dtype
        if not plain:
            kernels.install(model, dtype)
            packing.install(model)

    @property
    def path(self) -> str:
        return PLAIN if self.is_plain else PACKED

    @property
    def batches(self) -> bool:
        """Whether several models may share a row. A class's own attention needs memory for the square of the row."""
        return not self.is_plain and self.model.config._attn_implementation == packing.ATTENTION_NAME

    def run(self, plan: TokenPlan, models: int = 1) -> list[Trace]:
        """The traces of K models that share the weights and differ by the installed hooks; one on the plain path.

        Raises `Cancelled` between two layers (`workers.process.cancellation`).
        """
        if self.is_plain:
            assert models == 1  # the plain path runs one model at a time
            return [plain_forward.run(self.model, plan)]
        return packed_forward.run(self.model, plan, models)

    def run_virtual(self, plan: TokenPlan, virtual: VirtualTokens) -> Trace:
        """The trace of the model with virtual tokens before each prompt. Only on the plain path."""
        return plain_forward.run(self.model, plan, virtual)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Within the context, the model runs on the plain path, in float32."""
        if self.is_plain:
            yield
            return
        self.is_plain = True
        packing.use_attention(self.model, OWN_ATTENTION)
        try:
            with kernels.original_classes(self.model), kernels.exact(self.model):
                yield
        finally:
            self.is_plain = False
            packing.install(self.model)

    def prove(self, plan: TokenPlan) -> Proof:
        """Compare the packed forward pass with the plain one, alone and in a batch behind a perturbed neighbor, on the
        two prompts of `plan_proof`.

        Raises `UnsupportedBase` if the model does not run on text alone, or if its tokens attend to later ones.
        """
        with self.plain():
            expected = self._run_on_text(plan)
            self._check_causal(plan, expected)
        if self.is_plain:
            return Proof(PLAIN, None, "It was loaded for the plain path.")
        try:
            with kernels.exact(self.model):
                error = max(relative_error(trace, expected) for trace in self._packed_traces(plan))
        except (Cancelled, torch.OutOfMemoryError):
            raise
        except Exception as cause:  # classes that cannot run packed fail in many ways
            if "memory" in str(cause):
                raise
            return Proof(PLAIN, None, f"It does not run packed: {type(cause).__name__}: {first_line(cause)}"[:300])
        if error <= MAX_RELATIVE_ERROR:
            return Proof(PACKED, error)
        return Proof(PLAIN, error, "Its packed states differ from those of its own forward pass.")

    def _run_on_text(self, plan: TokenPlan) -> Trace:
        model_type = self.model.config.model_type
        try:
            trace = self.run(plan)[0]
        except (CatalogError, Cancelled, torch.OutOfMemoryError):
            raise
        except Exception as cause:  # classes that need other inputs fail in many ways
            if "memory" in str(cause):
                raise
            raise UnsupportedBase(
                f"{model_type} models do not run on text alone ({first_line(cause)[:200]}), so they cannot be "
                f"measured. {WHAT_TO_DO}"
            ) from cause
        if not all(torch.isfinite(state).all() for state in _states(trace)):
            raise UnsupportedBase(
                f"The {model_type} base computes NaN or infinity for a probe in this dtype. Use a worker with another "
                "dtype, or check the base's files."
            )
        widths = [state.shape[1] for state in (trace.middle, trace.final) if state is not None]
        if trace.middle is not None and len(set(widths)) > 1:  # OPT-350m projects its last hidden states
            raise UnsupportedBase(
                f"The last hidden states of this {model_type} model have {widths[-1]:,} dimensions and those of its "
                f"layers {widths[0]:,}, so delta_layers cannot combine them. Measure delta_activations alone: "
                "DELTADEX_FEATURES=delta_activations."
            )
        return trace

    def _check_causal(self, plan: TokenPlan, trace: Trace) -> None:
        """Raises `UnsupportedBase` if a token's state depends on later tokens. In `plan_proof`, the second prompt is
        the beginning of the first.
        """
        prompt, beginning = (((plan.probe == number) & (plan.branch == PROMPT)).nonzero()[:, 0] for number in (0, 1))
        prompt = prompt[: len(beginning)]
        if max(_relative_difference(state[beginning], state[prompt]) for state in _states(trace)) > MAX_CAUSAL_ERROR:
            raise UnsupportedBase(
                f"In this {self.model.config.model_type} model, tokens attend to later ones, as in encoders and "
                f"diffusion models, so Delta Activations do not apply. {WHAT_TO_DO}"
            )

    def _packed_traces(self, plan: TokenPlan) -> Iterator[Trace]:
        yield self.run(plan)[0]
        yield self.run_behind_neighbors(plan, 1)

    def run_behind_neighbors(self, plan: TokenPlan, neighbors: int) -> Trace:
        """The trace of the model as the last one of a packed batch, behind others with perturbed embeddings."""
        with _perturbed_embeddings(self.model, neighbors * plan.tokens):
            return self.run(plan, neighbors + 1)[-1]


def relative_error(trace: Trace, expected: Trace) -> float:
    """The largest relative error of a token's state at a layer that a feature reads; infinite if one is not finite."""
    read = trace.plan.read_at_end
    pairs = zip(_states(trace), _states(expected), strict=True)
    return max(_relative_difference(*(state if read is None else state[read] for state in pair)) for pair in pairs)


def _states(trace: Trace) -> Sequence[Tensor]:
    return [state for state in (trace.hidden, trace.middle, trace.final) if state is not None]


def _relative_difference(state: Tensor, expected: Tensor) -> float:
    """The largest relative difference of a token's state, (T, H) each."""
    error = float(((state - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-12)).max())
    return math.inf if math.isnan(error) else error


@contextmanager
def _perturbed_embeddings(model: Any, tokens: int) -> Iterator[None]:
    """Within the context, the embeddings of the first `tokens` tokens of a packed row have seeded noise added."""

    def perturb(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        rows = output.view(-1, output.shape[-1])[:tokens]
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(NEIGHBOR_SEED))
        rows.add_(noise.to(rows) * (NEIGHBOR_NOISE * rows.std()))
        return output

    handle = model.get_input_embeddings().register_forward_hook(perturb)
    try:
        yield
    finally:
        handle.remove()
