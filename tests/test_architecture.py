"""Who may import, commit and read the environment: the rules that keep the parts apart."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.problem_documents import problem

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


def imported(tree: ast.AST) -> Iterator[str]:
    """The full name of every module, and of what is taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reads_by_itself(tree: ast.AST) -> bool:
    """Imports a repository or SQLAlchemy, or opens a transaction."""
    parts = [name.split(".") for name in imported(tree)]
    by_import = any("repository" in names or names[0] == "sqlalchemy" for names in parts)
    return by_import or calls_method(tree, "transaction", "reading")


def uses_global_settings(tree: ast.AST) -> bool:
    return "catalog.settings.settings" in imported(tree)


SQL = ("select", "insert", "update", "delete", "text", "func")


def writes_sql(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sqlalchemy" and imports(node, *SQL))
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "sqlalchemy" for alias in node.names))
        for node in ast.walk(tree)
    )


def may_write_sql(file: str) -> bool:
    """The tables, what stands between them and the rest, and the migrations, which make the tables."""
    return (
        file in ("catalog/database.py", "catalog/locks.py")
        or file.startswith(("catalog/tables/", "migrations/"))
        or "repository" in Path(file).with_suffix("").parts
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


def test_the_api_reads_through_services_alone():
    assert not [file for file in files_where(reads_by_itself) if file.startswith("app/api/")]


def test_the_api_takes_its_settings_from_the_app():
    assert not [file for file in files_where(uses_global_settings) if file.startswith("app/api/")]


def imports_tests(tree: ast.AST) -> bool:
    """Whether it imports a module that holds tests or fixtures, by its name anywhere in the path."""
    named = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([getattr(node, "module", None) or ""] + [alias.name for alias in node.names])
    ]
    return any(part.startswith("test_") or part == "conftest" for name in named for part in name.split("."))


def test_tests_share_through_their_support_alone():
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert not [file.relative_to(ROOT).as_posix() for file in tests if imports_tests(ast.parse(file.read_text()))]


def test_an_assertion_of_a_helper_shows_its_values():
    with pytest.raises(AssertionError, match="'text/html' == 'application/problem"):
        problem(SimpleNamespace(headers={"content-type": "text/html"}))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (imports_tests, "from tests.workers.test_pipeline import make_pipeline"),
        (imports_tests, "from tests.workers import test_pipeline"),
        (imports_tests, "import tests.app.conftest"),
        (commits, "session.commit()"),
        (commits, "with engine.begin() as connection: pass"),
        (reads_the_environment, "import os; os.environ['DATABASE_URL']"),
        (reads_the_environment, "import os; {'key': os.environ.get('DATABASE_URL')}"),
        (reads_the_environment, "import os; os.getenv('DATABASE_URL')"),
        (reads_the_environment, "from os import environ"),
        (imports_faiss, "import faiss"),
        (imports_faiss, "from faiss import contrib"),
        (imports_faiss, "import faiss.contrib.ondisk"),
        (writes_sql, "from sqlalchemy import func"),
        (writes_sql, "from sqlalchemy.dialects.postgresql import insert"),
        (writes_sql, "import sqlalchemy as sa"),
        (reads_by_itself, "from catalog.jobs.repository import jobs"),
        (reads_by_itself, "from catalog.spaces import repository as spaces"),
        (reads_by_itself, "from sqlalchemy import text"),
        (reads_by_itself, "with services.database.transaction() as session: pass"),
        (uses_global_settings, "from catalog.settings import Settings, settings"),
    ],
)
def test_the_rules_above_see_what_breaks_them(rule, source):
    assert rule(ast.parse(source))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (imports_tests, "from tests.support.pipeline import make_pipeline"),
        (commits, "with transaction() as session: session.flush()"),
        (reads_the_environment, "import os; {**os.environ, 'DATABASE_URL': address}"),
        (imports_faiss, "from catalog import index"),
        (writes_sql, "from sqlalchemy.orm import Session"),
        (writes_sql, "from catalog.locks import acquire"),
        (reads_by_itself, "from catalog.jobs import service; service.get(services.database, 1)"),
        (uses_global_settings, "from catalog.settings import Settings"),
    ],
)
def test_the_rules_above_let_pass_what_is_right(rule, source):
    assert not rule(ast.parse(source))


def test_the_tour_names_files_that_are_there():
    tour = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:app|catalog|workers|migrations|tests)/[\w./]*)`", tour)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []
