"""Delta Activations, arXiv 2509.04442 section 3: the shift of the last token's hidden state, mean over probes."""

from __future__ import annotations

from torch import Tensor

from workers.encoding.features.base import Feature
from workers.encoding.trace import Trace


class DeltaActivations(Feature):
    name = "delta_activations"

    def table(self, trace: Trace) -> Tensor:
        return trace.hidden[trace.plan.last]  # (N, H)
