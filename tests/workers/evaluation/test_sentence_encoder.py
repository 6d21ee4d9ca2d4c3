from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from catalog.errors import MissingExtra
from workers.evaluation import sentence_encoder
from workers.evaluation.sentence_encoder import PACKAGE, SentenceEncoder

pytestmark = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="the extra `evaluate` is missing")

TEXTS = ("A cat sleeps on the sofa.", "A kitten is resting on the couch.", "The court dismissed the appeal.")


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_embeddings_are_unit_vectors_of_384_dimensions(encoder: SentenceEncoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (3, 384)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_similar_sentences_are_near(encoder: SentenceEncoder):
    cat, kitten, court = encoder.encode(TEXTS)
    assert cat @ kitten > 0.5
    assert cat @ court < 0.2


def test_padding_does_not_change_a_vector(encoder: SentenceEncoder):
    unpadded = torch.cat([encoder.encode([text]) for text in TEXTS])
    torch.testing.assert_close(encoder.encode(TEXTS), unpadded, atol=1e-5, rtol=0)


def test_empty_text_has_a_finite_vector(encoder: SentenceEncoder):
    assert torch.isfinite(encoder.encode([""])).all()


def test_package_is_not_imported(encoder: SentenceEncoder):
    assert PACKAGE not in sys.modules


def test_missing_package_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sentence_encoder, "PACKAGE", "no_such_package")
    with pytest.raises(MissingExtra, match=r"deltadex\[evaluate\]"):
        SentenceEncoder()
