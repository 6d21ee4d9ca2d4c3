from __future__ import annotations

import math

from catalog.clusters.naming import Told, explain, names


def terms(explanation: dict, kind: str) -> list[str]:
    return [each["term"] for each in explanation[kind]]


LAW = [
    Told(f"tiny-law-{n}", "Answers about contracts and courts.", ("peft", "legal"), {" court": 3.0, " the": 2.0})
    for n in range(3)
]
SUMS = [Told(f"tiny-math-{n}", "Answers about sums.", ("peft",), {" sum": 1.0, " the": 2.0}) for n in range(3)]


def test_words_tags_and_tokens_that_a_cluster_alone_has_set_it_apart():
    law, sums = explain([LAW, SUMS])
    assert set(terms(law, "words")) == {"law", "contracts", "and", "courts"}
    assert terms(law, "tags") == ["legal"]
    assert terms(law, "tokens") == [" court"]
    assert "math" in terms(sums, "words")
    assert terms(sums, "tags") == []


def test_the_score_is_class_based_tf_idf():
    law, _ = explain([[Told(tags=("a", "b"))], [Told(tags=("b",)), Told(tags=("b",))]])
    # one class has a in all members, f(a) = 1; terms weigh 2 + 1 over two classes
    assert law["tags"] == [{"term": "a", "score": round(math.log(1 + 1.5), 4), "share": 1.0}]


def test_a_name_is_made_of_words_that_most_members_have():
    mixed = [*LAW[:2], Told("tiny-law-9", "poetry", (), {})]
    law, sums = names(explain([mixed, SUMS]), [None, None])
    assert "poetry" not in law
    assert set(law.split()) <= {"law", "contracts", "and", "courts"}
    assert law != sums


def test_without_words_the_tokens_are_the_name():
    silent = [Told(tokens={" x": 1.0})] * 3, [Told(tokens={" y": 1.0})] * 3
    assert names(explain(silent), [None, None]) == ["'x'", "'y'"]


def test_a_name_that_was_given_stays_and_no_two_are_alike():
    nothing = {"words": [], "tags": [], "tokens": []}
    assert names([nothing, nothing, nothing], ["law", None, None]) == ["law", "unnamed", "unnamed 2"]
