"""The interface of a Delta-X feature: a table computed from one trace, compared with the base's table."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from workers.encoding.trace import Trace

MIDDLE_DEPTH = 0.4  # of the depth, where tasks are separated best (docs/representation.md)


class Feature(ABC):
    """A feature. It is stateless: it reads only the trace."""

    name: str
    at_layer = True  # reads `trace.hidden` at the requested layer; other features read `trace.final`
    in_the_middle = False  # reads `trace.middle`, at the fraction `MIDDLE_DEPTH` of the depth
    through_head = False  # reads logits
    whole_prompts = False  # reads all tokens of a prompt, not only the last
    after_prompts = False  # reads the continuations after the prompts
    across_bases = False  # its coordinates have the same meaning for every base

    @abstractmethod
    def table(self, trace: Trace) -> Tensor:
        """The values of one model on each probe, (N, d) float32."""

    def vector(self, tuned: Tensor, base: Tensor) -> Tensor:
        """The vector, (d,): by default the mean over the probes of the difference of two tables, (N, d) each."""
        return (tuned - base).mean(dim=0)

    def version(self, encoder: str) -> str:
        """The encoder's version, with the version of any data or parameters of the feature."""
        return encoder
