"""The whole numbers in an untrusted config, checked before a library builds anything of them.

Published configs hold token ids, counts of trained tokens and lengths of contexts up to ten million. So only numbers
that count parts of a model have narrow limits, each far above any published model; no other number may be one that
fits no 64-bit integer of a library. `tests/workers/finetunes/test_config_numbers.py` has a table of published numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from catalog.errors import Refused

LARGEST = 2**62
SMALL = 2**16  # below every limit, so that long lists of numbers cost nothing
LIMITS: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"\w*max_length"), 2**128),  # 10^30 stands for no limit
    (re.compile(r"vocab_size|vocab_size_per_layer_input"), 2**24),
    (re.compile(r"(num_)?(\w+_)?experts(_per_tok(en)?)?"), SMALL),
    (re.compile(r"(num_)?(\w+_)?heads|n_head|(num_)?(\w+_)?groups|n_groups?"), 2**20),
    (re.compile(r"(\w+_)?hidden_size|d_model|n_embd|(\w+_)?embed(ding)?_(dim|size)|(\w+_)?head_dim"), 2**24),
    (re.compile(r"(\w+_)?intermediate_size|d_ff|ffn_dim|n_inner|ffn_hidden_size"), 2**26),
)


def check_numbers(config: Any, refused: type[Refused]) -> None:
    """Raise `refused` for a whole number in a config that no model has. The config is not nested without limit."""
    for name, value in _large_numbers(config, ""):
        limit = next((limit for pattern, limit in LIMITS if pattern.fullmatch(name)), LARGEST)
        if abs(value) > limit:
            digits = f"{value:,}" if abs(value) <= LARGEST else f"a number of {value.bit_length():,} bits"
            raise refused(
                f"The config has {name[:40]} = {digits}; the limit is {limit:,}. Correct config.json: no model has "
                "as many."
            )


def _large_numbers(value: Any, name: str) -> Iterator[tuple[str, int]]:
    """The whole numbers that are not small, each with the name of the setting that holds it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _large_numbers(part, str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _large_numbers(part, name)
    elif isinstance(value, int) and abs(value) > SMALL:
        yield name, value
