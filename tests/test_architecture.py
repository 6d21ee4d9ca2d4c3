"""Rules of the architecture: which modules may import what, commit, write SQL and read the environment."""

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


def files_and_folders(folder: str) -> set[str]:
    """The names of the modules and packages directly in a folder."""
    entries = (ROOT / folder).iterdir()
    return {entry.name for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").exists()}


def test_top_level_of_catalog_holds_only_what_all_rooms_share():
    modules = {name for name in files_and_folders("catalog") if name.endswith(".py")}
    assert modules == {"__init__.py", "settings.py", "database.py", "queue.py", "locks.py"}


def test_top_level_of_workers_holds_only_entry_points():
    modules = {name for name in files_and_folders("workers") if name.endswith(".py")}
    assert modules == {"__init__.py", "main.py", "bootstrap.py", "health.py", "embed.py"}


def test_every_room_of_the_api_consists_of_routes_and_schemas():
    rooms = [room for room in (ROOT / "app" / "api").iterdir() if (room / "__init__.py").exists()]
    other = {"auth", "services"}  # all routes depend on these
    modules = {file.stem for room in rooms if room.name not in other for file in room.glob("*.py")} - {"__init__"}
    assert all(re.fullmatch(r"(\w+_)?(routes|schemas)|health|metrics|stats", module) for module in modules)
    assert not [
        room
        for room in rooms
        if room.name not in other and not list(room.glob("*routes.py")) and room.name != "operations"
    ]


def test_rooms_have_the_same_names_in_every_package():
    catalog = files_and_folders("catalog")
    shared_by_workers = {"tasks", "selections", "merges", "maintenance"}
    shared_by_api = {
        "auth",
        "clusters",
        "jobs",
        "maps",
        "merges",
        "models",
        "reindexes",
        "search",
        "selections",
        "tasks",
        "vectors",
    }
    assert shared_by_workers <= files_and_folders("workers") & catalog
    assert shared_by_api <= files_and_folders("app/api") & catalog


def test_tests_mirror_the_packages():
    folders = {file.parent.relative_to(ROOT / "tests") for file in (ROOT / "tests").rglob("test_*.py")}
    unmatched = {str(folder) for folder in folders if not (ROOT / folder).is_dir()}
    assert unmatched == {"support"}  # it tests the helpers


def test_modules_are_short():
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in SOURCES}
    long = {name for name, length in lengths.items() if length > 420 and not name.startswith("migrations/")}
    assert long == set()


def test_import_linter_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_api_process_imports_neither_torch_nor_a_hub_client():
    heavy = ("torch", "transformers", "peft", "huggingface_hub", "safetensors")
    code = f"import sys, app.main; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def calls_method(tree: ast.AST, *names: str) -> bool:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(function, ast.Attribute) and function.attr in names for function in calls)


def commits(tree: ast.AST) -> bool:
    """Whether it commits a transaction: a `begin()` block commits when it ends."""
    return calls_method(tree, "commit", "begin", "begin_nested")


def reads_the_environment(tree: ast.AST) -> bool:
    """Whether it reads environment variables. To pass all of them to a child, `{**os.environ, ...}`, is not reading."""
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


def imported_names(tree: ast.AST) -> Iterator[str]:
    """The full names of all imported modules and objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def accesses_database(tree: ast.AST) -> bool:
    """Whether it imports a repository or SQLAlchemy, or opens a transaction."""
    parts = [name.split(".") for name in imported_names(tree)]
    by_import = any("repository" in names or names[0] == "sqlalchemy" for names in parts)
    return by_import or calls_method(tree, "transaction", "reading")


def uses_global_settings(tree: ast.AST) -> bool:
    return "catalog.settings.settings" in imported_names(tree)


SQL = ("select", "insert", "update", "delete", "text", "func")


def writes_sql(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sqlalchemy" and imports(node, *SQL))
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "sqlalchemy" for alias in node.names))
        for node in ast.walk(tree)
    )


def may_write_sql(file: str) -> bool:
    """Whether a file is allowed to write SQL: tables, repositories, migrations and the database modules."""
    return (
        file in ("catalog/database.py", "catalog/locks.py")
        or file.startswith(("catalog/tables/", "migrations/"))
        or "repository" in Path(file).with_suffix("").parts
    )


def files_where(rule: Callable[[ast.AST], bool]) -> set[str]:
    """The source files that a rule applies to."""
    return {file.relative_to(ROOT).as_posix() for file in SOURCES if rule(ast.parse(file.read_text(), str(file)))}


def test_only_database_module_commits():
    assert files_where(commits) == {"catalog/database.py"}


def test_only_settings_module_reads_the_environment():
    # pydantic's BaseSettings reads the variables, so that not even the settings module uses os.environ
    assert files_where(reads_the_environment) == set()


def test_only_index_room_imports_faiss():
    users = files_where(imports_faiss)
    assert users
    assert all(user.startswith("catalog/index/") for user in users)


def test_api_imports_no_repository_and_opens_no_transaction():
    assert not [file for file in files_where(accesses_database) if file.startswith("app/api/")]


def test_api_takes_settings_from_the_app():
    assert not [file for file in files_where(uses_global_settings) if file.startswith("app/api/")]


def imports_tests(tree: ast.AST) -> bool:
    """Whether it imports a module of tests or fixtures."""
    names = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([getattr(node, "module", None) or ""] + [alias.name for alias in node.names])
    ]
    return any(part.startswith("test_") or part == "conftest" for name in names for part in name.split("."))


def test_tests_import_nothing_from_other_tests():
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert not [file.relative_to(ROOT).as_posix() for file in tests if imports_tests(ast.parse(file.read_text()))]


def test_assertions_in_helpers_show_their_values():
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
        (accesses_database, "from catalog.jobs.repository import jobs"),
        (accesses_database, "from catalog.spaces import repository as spaces"),
        (accesses_database, "from sqlalchemy import text"),
        (accesses_database, "with services.database.transaction() as session: pass"),
        (uses_global_settings, "from catalog.settings import Settings, settings"),
    ],
)
def test_rules_detect_violations(rule, source):
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
        (accesses_database, "from catalog.jobs import service; service.get(services.database, 1)"),
        (uses_global_settings, "from catalog.settings import Settings"),
    ],
)
def test_rules_accept_valid_code(rule, source):
    assert not rule(ast.parse(source))


def test_architecture_tour_names_existing_files():
    tour = (ROOT / "docs" / "architecture.md").read_text()
    paths = re.findall(r"`((?:app|catalog|workers|migrations|tests)/[\w./]*)`", tour)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
