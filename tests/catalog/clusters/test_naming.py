from __future__ import annotations

import math

from catalog.clusters.naming import NamedMember, choose_names, explain


def terms(explanation: dict, kind: str) -> list[str]:
    return [entry["term"] for entry in explanation[kind]]


LAW = [
    NamedMember(f"tiny-law-{n}", "Answers about contracts and courts.", ("peft", "legal"), {" court": 3.0, " the": 2.0})
    for n in range(3)
]
SUMS = [NamedMember(f"tiny-math-{n}", "Answers about sums.", ("peft",), {" sum": 1.0, " the": 2.0}) for n in range(3)]


def test_cluster_is_explained_by_its_distinctive_words_tags_and_tokens():
    law, sums = explain([LAW, SUMS])
    assert set(terms(law, "words")) == {"law", "contracts", "and", "courts"}
    assert terms(law, "tags") == ["legal"]
    assert terms(law, "tokens") == [" court"]
    assert "math" in terms(sums, "words")
    assert terms(sums, "tags") == []


def test_score_is_class_based_tf_idf():
    law, _ = explain([[NamedMember(tags=("a", "b"))], [NamedMember(tags=("b",)), NamedMember(tags=("b",))]])
    # only the first class has the term a, in all members: f(a) = 1; the shares sum to 2 + 1 over two classes
    assert law["tags"] == [{"term": "a", "score": round(math.log(1 + 1.5), 4), "share": 1.0}]


def test_name_consists_of_words_that_most_members_have():
    mixed = [*LAW[:2], NamedMember("tiny-law-9", "poetry", (), {})]
    law, sums = choose_names(explain([mixed, SUMS]), [None, None])
    assert "poetry" not in law
    assert set(law.split()) <= {"law", "contracts", "and", "courts"}
    assert law != sums


def test_tokens_are_the_name_without_words_and_tags():
    members = [NamedMember(tokens={" x": 1.0})] * 3, [NamedMember(tokens={" y": 1.0})] * 3
    assert choose_names(explain(members), [None, None]) == ["'x'", "'y'"]


def test_previous_names_are_kept_and_names_are_unique():
    empty = {"words": [], "tags": [], "tokens": []}
    assert choose_names([empty, empty, empty], ["law", None, None]) == ["law", "unnamed", "unnamed 2"]
