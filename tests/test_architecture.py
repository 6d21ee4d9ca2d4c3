"""Who may import, commit and read the environment: the rules that keep the parts apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "catalog", "workers", "migrations")
SOURCES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def test_the_contracts_of_import_linter_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_serving_http_imports_neither_torch_nor_a_hub_client():
    heavy = ("torch", "transformers", "peft", "huggingface_hub", "safetensors")
    code = f"import sys, app.main; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def calls_method(tree: ast.AST, *names: str) -> bool:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(function, ast.Attribute) and function.attr in names for function in calls)


def commits(tree: ast.AST) -> bool:
    """`session.begin()` commits when its block ends."""
    return calls_method(tree, "commit", "begin", "begin_nested")


def reads_the_environment(tree: ast.AST) -> bool:
    """Passing it on whole to a child, `{**os.environ, ...}`, is not reading it."""
    nodes = list(ast.walk(tree))
    passed_on = {
        id(value)
        for node in nodes
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if key is None
    }
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and id(node) not in passed_on)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and imports(node, "environ", "getenv"))
        for node in nodes
    )


def imports(node: ast.Import | ast.ImportFrom, *names: str) -> bool:
    return any(alias.name in names for alias in node.names)


def imports_faiss(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "faiss" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "faiss")
        for node in ast.walk(tree)
    )


def files_where(rule: Callable[[ast.AST], bool]) -> set[str]:
    return {file.relative_to(ROOT).as_posix() for file in SOURCES if rule(ast.parse(file.read_text(), str(file)))}


def test_only_the_database_commits():
    assert files_where(commits) == {"catalog/database.py"}


def test_only_the_settings_read_the_environment():
    # BaseSettings does the reading, so not even the settings name os.environ
    assert files_where(reads_the_environment) == set()


def test_only_the_index_imports_faiss():
    users = files_where(imports_faiss)
    assert users
    assert all(user.startswith("catalog/index/") for user in users)


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (commits, "session.commit()"),
        (commits, "with engine.begin() as connection: pass"),
        (reads_the_environment, "import os; os.environ['DATABASE_URL']"),
        (reads_the_environment, "import os; {'key': os.environ.get('DATABASE_URL')}"),
        (reads_the_environment, "import os; os.getenv('DATABASE_URL')"),
        (reads_the_environment, "from os import environ"),
        (imports_faiss, "import faiss"),
        (imports_faiss, "from faiss import contrib"),
        (imports_faiss, "import faiss.contrib.ondisk"),
    ],
)
def test_the_rules_above_see_what_breaks_them(rule, source):
    assert rule(ast.parse(source))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (commits, "with transaction() as session: session.flush()"),
        (reads_the_environment, "import os; {**os.environ, 'DATABASE_URL': address}"),
        (imports_faiss, "from catalog import index"),
    ],
)
def test_the_rules_above_let_pass_what_is_right(rule, source):
    assert not rule(ast.parse(source))
