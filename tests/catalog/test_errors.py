from __future__ import annotations

import re

import pytest

from catalog import errors
from catalog.errors import CatalogError, Misconfigured, Refused, Unavailable

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CatalogError)]
LINE = re.compile(r"(?P<indent>(?:│   |    )?)[├└]── (?P<names>\w+(?:, \w+)*)")


def documented() -> dict[str, str]:
    """Each class in the docstring's tree, and its parent there."""
    parents: dict[str, str] = {}
    branch = ""
    for line in (errors.__doc__ or "").splitlines():
        if (match := LINE.match(line)) is None:
            continue
        names = match["names"].split(", ")
        if not match["indent"]:
            [branch] = names
        parents |= dict.fromkeys(names, branch if match["indent"] else CatalogError.__name__)
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    assert documented() == {kind.__name__: kind.__base__.__name__ for kind in CLASSES if kind is not CatalogError}


def test_no_class_is_named_twice_in_the_docstring():
    names = re.findall(r"\b[A-Z]\w+[a-z]\w*\b", (errors.__doc__ or "").split("CatalogError", 1)[1])
    assert len(names) == len(set(names))


def test_codes_are_unique_and_named_after_their_classes():
    expected = {kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in CLASSES}
    expected[CatalogError] = "internal_error"
    assert {kind: kind.code for kind in CLASSES} == expected


def test_titles_are_unique():
    assert len({kind.title for kind in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_statuses_are_those_of_errors(kind: type[CatalogError]):
    at_fault = (kind is CatalogError) or issubclass(kind, Misconfigured)
    expected = range(500, 501) if at_fault else range(503, 504) if issubclass(kind, Unavailable) else range(400, 500)
    assert kind.status in expected or kind.code in ("hub_rate_limited", "too_many_jobs")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_only_what_is_unavailable_is_transient(kind: type[CatalogError]):
    assert kind.transient is issubclass(kind, Unavailable)
    assert not (kind.transient and issubclass(kind, Refused))


def test_an_error_is_its_sentence():
    error = Unavailable("Come back.", retry_after=3)
    assert (str(error), error.message, error.retry_after) == ("Come back.", "Come back.", 3)
