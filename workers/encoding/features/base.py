"""What a Delta-X feature is: a table of numbers read off one forward, compared with the base's own table."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from workers.encoding.trace import Trace

MIDDLE = 0.4  # of the layers: where tasks are told apart best, see docs/representation.md


class Feature(ABC):
    """One member of the family. Stateless: everything it reads comes in the trace."""

    name: str
    at_layer = True  # reads `trace.hidden`, at whatever layer was asked for; the others read `trace.final`
    in_the_middle = False  # reads `trace.middle`, at `MIDDLE` of the way from the embeddings to the end
    through_head = False  # reads logits
    whole_prompts = False  # reads all of a prompt's tokens, not its last alone
    after_prompts = False  # needs the continuations behind the prompts
    across_bases = False  # its coordinates mean the same for every base

    @abstractmethod
    def table(self, trace: Trace) -> Tensor:
        """What one model shows on each probe, (N, d) float32."""

    def vector(self, tuned: Tensor, base: Tensor) -> Tensor:
        """The vector, (d,): by default the difference of two tables, (N, d) each, averaged over the probes."""
        return (tuned - base).mean(dim=0)

    def version(self, encoder: str) -> str:
        """The encoder's version, and that of any data of the feature's own."""
        return encoder
