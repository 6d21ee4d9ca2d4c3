"""The contract of a space. Only vectors of one space are comparable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# the features that searches use by default, the best by measurement first (docs/representation.md)
PREFERRED_FEATURES = ("delta_layers", "delta_activations")


def preference_rank(feature: str) -> int:
    """The position of a feature in `PREFERRED_FEATURES`; any other feature ranks last."""
    return PREFERRED_FEATURES.index(feature) if feature in PREFERRED_FEATURES else len(PREFERRED_FEATURES)


BASE_INDEPENDENT_FIELDS = ("feature", "layer", "probe_set", "dtype", "encoder_version")  # set by the worker
KEY = re.compile("[0-9a-f]{64}")
NAME_PATTERN = f"^({KEY.pattern}|[a-z][a-z_]{{0,62}})$"  # a space's key, or a feature


def features_named(name: str) -> tuple[str, ...]:
    """The features that a name may refer to, with or without `delta_`; none if the name is a key."""
    return () if KEY.fullmatch(name) else (name, f"delta_{name}")


@dataclass(frozen=True)
class Space:
    """Everything that two vectors must share to be comparable.

    `base_repo` and `base_sha` are None for `delta_meaning`, whose coordinates do not depend on the base.
    `probe_set` is the probe set's sha256 and `layer` an index into `hidden_states` (-1: after the final norm).
    `edition` is the id of the reindex that measured the space, 0 for the first measurement. Vectors of two editions of
    one contract are comparable.
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
        """The sha256 of the canonical JSON, in hex, which identifies the space wherever it is stored."""
        fields = dataclasses.asdict(self)
        if not self.edition:  # stored keys predate editions
            del fields["edition"]
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "key": self.key}


def describe_contract(contract: Sequence[Space]) -> list[dict[str, Any]]:
    """The base-independent fields of a worker's contract, one dictionary per feature, sorted by feature."""
    fields = ({name: getattr(space, name) for name in BASE_INDEPENDENT_FIELDS} for space in contract)
    return sorted(fields, key=lambda values: str(values["feature"]))
