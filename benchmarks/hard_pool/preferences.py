"""Three scripted preferences over the same rows, and the loss of direct preference optimization (DPO).

Rafailov et al. 2023, arXiv 2305.18290, equation 7: with r the log-likelihood of an answer under the adapter minus that
under the unchanged base, the loss is -log sigmoid(beta * (r(chosen) - r(rejected))).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.hard_pool.domains import read_rows
from benchmarks.hard_pool.rows import Row

BETA = 0.1
FILES = ("math.jsonl", "medical.jsonl")
POLITE = (
    "Thank you so much for your question! I would be very happy to help you. ",
    " Please let me know if I can help.",
)


def sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n+|(?<=[.!?])\s+", text) if part.strip()]


def wordings(preference: str, output: str) -> tuple[str, str]:
    """The chosen and the rejected wording of an answer. Raises `ValueError` for an unknown preference."""
    parts = sentences(output)
    prose = " ".join(parts)
    if preference == "short":
        return parts[-1], prose
    if preference == "list":
        return "\n".join(f"- {part}" for part in parts), prose
    if preference == "plain":
        return prose, f"{POLITE[0]}{prose}{POLITE[1]}"
    raise ValueError(f"unknown preference {preference!r}")


def pairs(data: Path, preference: str) -> list[tuple[Row, Row]]:
    """Pairs of a chosen and a rejected row, from the same rows in the same order for every preference."""
    files = [[row for row, _ in read_rows(data / name)] for name in FILES]
    mixed = [row for rows in zip(*files, strict=False) for row in rows]
    return [_pair(row, preference) for row in mixed if len(sentences(row.output)) >= 2 and len(row.output) < 280]


def _pair(row: Row, preference: str) -> tuple[Row, Row]:
    chosen, rejected = (Row(row.instruction, row.input, text) for text in wordings(preference, row.output))
    return chosen, rejected


def dpo_loss(tuned: Tensor, reference: Tensor) -> Tensor:
    """The mean DPO loss of log-likelihoods (2, B), rows chosen and rejected, of the adapter and of the base."""
    chosen, rejected = tuned - reference
    return -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean()
