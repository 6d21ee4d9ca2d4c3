from __future__ import annotations

import re

import pytest

from catalog import errors
from catalog.errors import CatalogError, Misconfigured, Refused, Unavailable

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CatalogError)]
LINE = re.compile(r"(?P<indent>(?:│   |    )*)[├└]── (?P<names>\w+(?:, \w+)*)")


def documented_parents() -> dict[str, str]:
    """The parent of each class in the tree of the docstring."""
    parents: dict[str, str] = {}
    branch = [CatalogError.__name__]  # the classes above the next line
    for line in (errors.__doc__ or "").splitlines():
        if (match := LINE.match(line)) is None:
            continue
        names, depth = match["names"].split(", "), len(match["indent"]) // 4
        parents |= dict.fromkeys(names, branch[depth])
        branch = [*branch[: depth + 1], names[-1]]
    return parents


def test_docstring_tree_matches_the_classes():
    assert documented_parents() == {
        error_class.__name__: error_class.__base__.__name__
        for error_class in CLASSES
        if error_class is not CatalogError
    }


def test_docstring_tree_names_each_class_once():
    names = re.findall(r"\b[A-Z]\w+[a-z]\w*\b", (errors.__doc__ or "").split("CatalogError", 1)[1])
    assert len(names) == len(set(names))


def test_codes_are_unique_and_derived_from_class_names():
    expected = {error_class: re.sub(r"(?<!^)(?=[A-Z])", "_", error_class.__name__).lower() for error_class in CLASSES}
    expected[CatalogError] = "internal_error"
    assert {error_class: error_class.code for error_class in CLASSES} == expected


def test_titles_are_unique():
    assert len({error_class.title for error_class in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda error_class: error_class.__name__)
def test_statuses_are_http_error_statuses(error_class: type[CatalogError]):
    is_server_error = (error_class is CatalogError) or issubclass(error_class, Misconfigured)
    expected = (
        range(500, 501)
        if is_server_error
        else range(503, 504)
        if issubclass(error_class, Unavailable)
        else range(400, 500)
    )
    too_many = ("hub_rate_limited", "too_many_jobs", "rate_limited", "too_many_at_once")
    assert error_class.status in expected or error_class.code in too_many


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda error_class: error_class.__name__)
def test_only_unavailable_errors_are_transient(error_class: type[CatalogError]):
    assert error_class.transient is issubclass(error_class, Unavailable)
    assert not (error_class.transient and issubclass(error_class, Refused))


def test_str_of_an_error_is_its_message():
    error = Unavailable("Come back.", retry_after=3)
    assert (str(error), error.message, error.retry_after) == ("Come back.", "Come back.", 3)
