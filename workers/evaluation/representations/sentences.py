"""Baseline: what the models say. Greedy answers to the probes, embedded by a sentence encoder, mean over probes."""

from __future__ import annotations

import time

import torch

from workers.evaluation.generation import answers
from workers.evaluation.pool import Pool, Tell
from workers.evaluation.representations.base import Dense, Made, Representation, Setting
from workers.evaluation.sentence_encoder import SentenceEncoder


class OutputSentences(Representation):
    name = "output_sentences"

    def make(self, pool: Pool, setting: Setting, tell: Tell) -> Made:
        encoder = SentenceEncoder()
        started = time.monotonic()
        rows: list[torch.Tensor] = []
        first = ""
        for finetunes in pool.batches(setting.batch):
            tell(self.name, len(rows), len(pool))
            for texts in answers(finetunes, setting.base, setting.guard, setting.probes.prompts, setting.answer_tokens):
                rows.append(encoder.encode(texts).mean(dim=0))  # (384,)
                first = first or texts[0]
        vectors = torch.stack(rows).numpy()
        contract = {"encoder": "all-MiniLM-L6-v2", "answer_tokens": setting.answer_tokens, "first_answer": first}
        return Made(Dense(vectors), time.monotonic() - started, contract)
