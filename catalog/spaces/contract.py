"""The embedding contract: vectors compare only within one space."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# features by which models are compared where nobody says, the best by measurement first (docs/representation.md)
PREFERRED = ("delta_layers", "delta_activations")


def preference_rank(feature: str) -> int:
    """The place of a feature among the preferred ones, from 0; all others stand behind them."""
    return PREFERRED.index(feature) if feature in PREFERRED else len(PREFERRED)


BROUGHT_BY_WORKERS = ("feature", "layer", "probe_set", "dtype", "encoder_version")  # of a space, whatever the base
KEY = re.compile("[0-9a-f]{64}")
NAME = f"^({KEY.pattern}|[a-z][a-z_]{{0,62}})$"  # how a space may be named: by its key, or by its feature


def features_named(name: str) -> tuple[str, ...]:
    """The features that a name may mean, with or without `delta_`; none for a key, which names one space."""
    return () if KEY.fullmatch(name) else (name, f"delta_{name}")


@dataclass(frozen=True)
class Space:
    """Everything that two vectors must share to be comparable.

    `base_repo` and `base_sha` are None for `delta_meaning`, whose coordinates do not depend on the base.
    `probe_set` is the probe set's sha256 and `layer` an index into `hidden_states` (-1: after the final norm).
    `edition` is the number of the reindex that measured it anew, 0 for none: editions of one contract may be compared,
    and stand in for each other.
    """

    feature: str
    layer: int
    base_repo: str | None
    base_sha: str | None
    probe_set: str
    dtype: str
    encoder_version: str
    edition: int = 0

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON, in hex: the space's name wherever it is stored."""
        told = dataclasses.asdict(self)
        if not self.edition:  # keys are older than editions
            del told["edition"]
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "key": self.key}


def contract_told(contract: Sequence[Space]) -> list[dict[str, Any]]:
    """What a worker measures, whatever the base, in the order of the features."""
    told = ({name: getattr(space, name) for name in BROUGHT_BY_WORKERS} for space in contract)
    return sorted(told, key=lambda each: str(each["feature"]))
