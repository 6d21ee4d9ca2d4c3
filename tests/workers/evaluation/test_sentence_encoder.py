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


def test_vectors_are_unit_vectors_of_384_dimensions(encoder: SentenceEncoder):
    found = encoder.encode(TEXTS)
    assert found.shape == (3, 384)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_like_sentences_are_near(encoder: SentenceEncoder):
    one, other, stranger = encoder.encode(TEXTS)
    assert one @ other > 0.5
    assert one @ stranger < 0.2


def test_padding_changes_no_vector(encoder: SentenceEncoder):
    alone = torch.cat([encoder.encode([text]) for text in TEXTS])
    torch.testing.assert_close(encoder.encode(TEXTS), alone, atol=1e-5, rtol=0)


def test_an_empty_answer_has_a_vector_too(encoder: SentenceEncoder):
    assert torch.isfinite(encoder.encode([""])).all()


def test_its_package_is_not_imported(encoder: SentenceEncoder):
    assert PACKAGE not in sys.modules


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sentence_encoder, "PACKAGE", "no_such_package")
    with pytest.raises(MissingExtra, match=r"deltadex\[evaluate\]"):
        SentenceEncoder()
