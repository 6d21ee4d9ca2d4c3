"""Baseline: greedy answers to the probes, embedded by a sentence encoder and averaged over the probes."""

from __future__ import annotations

import time

import torch

from workers.evaluation.generation import generate_answers
from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations.base import Dense, EvaluationContext, PoolVectors, Representation
from workers.evaluation.sentence_encoder import SentenceEncoder


class OutputSentences(Representation):
    name = "output_sentences"

    def compute(self, pool: Pool, context: EvaluationContext, progress: Progress) -> PoolVectors:
        encoder = SentenceEncoder()
        started = time.monotonic()
        rows: list[torch.Tensor] = []
        first_answer = ""
        for finetunes in pool.batches(context.batch):
            progress(self.name, len(rows), len(pool))
            for texts in generate_answers(
                finetunes, context.base, context.guard, context.probes.prompts, context.answer_tokens
            ):
                rows.append(encoder.encode(texts).mean(dim=0))  # (384,)
                first_answer = first_answer or texts[0]
        vectors = torch.stack(rows).numpy()
        contract = {"encoder": "all-MiniLM-L6-v2", "answer_tokens": context.answer_tokens, "first_answer": first_answer}
        return PoolVectors(Dense(vectors), time.monotonic() - started, contract)
