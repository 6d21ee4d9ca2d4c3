"""Delta Activations in the middle of the model beside those at its end.

The middle tells near tasks apart better, the end how a model answers (docs/representation.md). Each is divided by the
norm of the base's own mean state there, for states grow from layer to layer: what comes out is still linear in the
shift, so norms say how far a model moved, and mixtures add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.encoding.features.base import MIDDLE, Feature
from workers.encoding.trace import Trace


class DeltaLayers(Feature):
    name = "delta_layers"
    at_layer = False
    in_the_middle = True

    def table(self, trace: Trace) -> Tensor:
        assert trace.middle is not None  # the plan of a feature that reads them has both
        assert trace.final is not None
        return torch.cat([trace.middle[trace.plan.last], trace.final[trace.plan.last]], dim=1)  # (N, 2H)

    def vector(self, tuned: Tensor, base: Tensor) -> Tensor:
        shift, own = ((each.mean(dim=0).view(2, -1)) for each in (tuned - base, base))  # (2, H) each
        return (shift / own.norm(dim=1, keepdim=True)).flatten()  # (2H,)

    def version(self, encoder: str) -> str:
        return f"{encoder}+middle-{MIDDLE}"
