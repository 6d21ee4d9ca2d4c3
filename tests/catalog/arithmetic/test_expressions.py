from __future__ import annotations

import pytest

from catalog.arithmetic.expressions import (
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_NAME_LENGTH,
    MAX_TERMS,
    check_name,
    format_expression,
    parse,
)
from catalog.errors import InvalidExpression, InvalidName


def weights(text: str) -> dict[str, float]:
    return {term.name.text: term.weight for term in parse(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("math", {"math": 1}),
        ("math + 0.5*code - chat", {"math": 1, "code": 0.5, "chat": -1}),
        ("+math", {"math": 1}),
        ("- math", {"math": -1}),
        ("math - -code", {"math": 1, "code": 1}),
        ("2*math", {"math": 2}),
        ("math*2", {"math": 2}),
        ("math / 4", {"math": 0.25}),
        ("2*math*3/4", {"math": 1.5}),
        ("1e-2*math + 1E+2*code + .5*law + 3.*chat", {"math": 0.01, "code": 100, "law": 0.5, "chat": 3}),
        ("(math + code)/2", {"math": 0.5, "code": 0.5}),
        ("-(math - (code - 2*law))*2", {"math": -2, "code": 2, "law": -4}),
        ("(1 + 2)*math", {"math": 3}),
        ("math + code - 2*math", {"math": -1, "code": 1}),
        ("0*math + code", {"math": 0, "code": 1}),
        (" math\n\t+ code ", {"math": 1, "code": 1}),
    ],
)
def test_parse_returns_weights_by_name(text: str, expected: dict[str, float]):
    assert weights(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", {"owner/name": 1}),
        ("a-b/c.d-e_f + x", {"a-b/c.d-e_f": 1, "x": 1}),
        ("math-code", {"math-code": 1}),
        ("math -code", {"math": 1, "code": -1}),
        ("math- code", {"math": 1, "code": -1}),
        ("math/2", {"math": 0.5}),
        ("math/2 + owner/7b-chat", {"math": 0.5, "owner/7b-chat": 1}),
        ("owner/name/2", {"owner/name": 0.5}),
        ("'owner/2'/2", {"owner/2": 0.5}),
        ('"old chat, 1" - \'say "hi"\'', {"old chat, 1": 1, 'say "hi"': -1}),
        ("2math + 3*4x", {"2math": 1, "4x": 3}),
        ("'2'", {"2": 1}),
    ],
)
def test_names_are_parts_of_repo_ids_or_quoted(text: str, expected: dict[str, float]):
    assert weights(text) == expected


def test_names_may_have_a_kind():
    names = [(term.name.kind, term.name.text) for term in parse('cluster:7 + vector:a.b/2 - cluster:"a b" + c')]
    assert names == [("cluster", "7"), ("vector", "a.b"), ("cluster", "a b"), (None, "c")]


def test_terms_have_their_spans():
    first, second = parse("  2*(math + cluster:'a b')")
    assert (tuple(first.name.span), tuple(second.name.span)) == ((5, 4), (12, 13))


@pytest.mark.parametrize(
    ("text", "start", "length"),
    [
        ("", 0, 0),
        ("  ", 0, 0),
        ("math +", 6, 0),
        ("math + * code", 7, 1),
        ("math code", 5, 4),
        ("2 math", 2, 4),
        ("3", 0, 1),
        ("1 + 2", 0, 5),
        ("math + 3", 7, 1),
        ("3 + math", 0, 1),
        ("math + 2*(1 + 2)", 7, 9),
        ("math*code", 0, 9),
        ("2 / math", 4, 4),
        ("math/0", 5, 1),
        ("math/(1 - 1)", 5, 7),
        ("(math", 0, 1),
        ("2*(math + (code)", 2, 1),
        ("(math code)", 6, 4),
        ("math)", 4, 1),
        ("()", 1, 1),
        ("math + $5", 7, 1),
        ("math # code", 5, 1),
        ("math + 'code", 7, 5),
        ("math + cluster: code", 7, 8),
        ("cluster:'", 8, 1),
        ("math + ''", 7, 2),
        ("'a\x00b'", 0, 5),
        ("'a\ud800'", 0, 4),
        ("mäth", 1, 1),
        ("1e999*math", 6, 4),
        ("1e999*0*math", 8, 4),
        ("math/1e-300", 0, 4),
        ("1e5*math + 1e10*code", 16, 4),
    ],
)
def test_invalid_expression_has_the_span_of_the_mistake(text: str, start: int, length: int):
    with pytest.raises(InvalidExpression) as raised:
        parse(text)
    assert raised.value.span == (start, length)
    assert raised.value.message.endswith(".")


def test_expression_limits():
    assert len(parse(" + ".join(f"n{number}" for number in range(MAX_TERMS)))) == MAX_TERMS
    assert weights("(" * MAX_DEPTH + "math" + ")" * MAX_DEPTH) == {"math": 1}
    assert weights("-" * (MAX_LENGTH - 4) + "math") == {"math": 1}
    for text in (
        " + ".join(f"n{number}" for number in range(MAX_TERMS + 1)),
        "(" * (MAX_DEPTH + 1) + "math" + ")" * (MAX_DEPTH + 1),
        "m" * (MAX_LENGTH + 1),
    ):
        with pytest.raises(InvalidExpression, match="at most"):
            parse(text)


@pytest.mark.parametrize("name", ["math", "a.b-c_d", "7b", "x" * MAX_NAME_LENGTH])
def test_name_that_needs_no_quotes_is_valid_for_a_vector(name: str):
    assert check_name(name) == name
    assert weights(name) == {name: 1}


@pytest.mark.parametrize(
    "name", ["", "7", "1e5", "a b", "a/b", "-a", "a-", "vector:a", "x" * (MAX_NAME_LENGTH + 1), "ä", "a\n"]
)
def test_other_names_raise_invalid_name(name: str):
    with pytest.raises(InvalidName):
        check_name(name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cluster", "law"),
        ("cluster", "law, math"),
        ("cluster", 'a "b"'),
        ("vector", "a/b"),
        (None, "a b"),
        (None, "a/500"),
    ],
)
def test_formatted_term_parses_to_its_kind_and_name(kind: str | None, name: str):
    [term] = parse(format_expression(kind, name))
    assert (term.name.kind, term.name.text) == (kind, name)
