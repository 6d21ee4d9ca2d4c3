"""Every finding of the review is listed with tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "findings.md"
ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def listed_tests() -> dict[int, list[tuple[str, str]]]:
    return {int(number): TEST.findall(cell) for number, cell in ROW.findall(PAGE.read_text())}


def test_every_finding_is_listed_with_a_test():
    listed = listed_tests()
    assert list(listed) == list(range(1, 39))
    assert [number for number, tests in listed.items() if not tests] == []


def test_listed_tests_exist():
    missing = [
        f"{path}::{name}"
        for tests in listed_tests().values()
        for path, name in tests
        if name not in function_names(TESTS / path)
    ]
    assert missing == []


def function_names(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
