"""No Docker engine runs here: the files that one would read are linted, schema-checked and compared with the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from app.deployment import processes
from catalog.settings import Settings

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE_FILES = ["docker-compose.yml", "docker-compose.gpu.yml"]
YAMLLINT = "{extends: default, rules: {line-length: {max: 120}}}"
PACKAGES = ["app", "catalog", "migrations", "workers"]


def run_tool(*command: str) -> subprocess.CompletedProcess[str]:
    """A tool of this environment, whose folder need not be on the PATH."""
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=60, check=False)


def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def images() -> dict[str, str]:
    """The stages of the Dockerfile by name, line continuations joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    return {stage.split("\n")[0].split(" AS ")[1].strip(): stage for stage in stages}


def instruction(image: str, name: str) -> list[str]:
    """The words of an instruction in its JSON form."""
    line = re.search(rf"^{name} .*?(\[.*\])$", images()[image], flags=re.MULTILINE)
    assert line, f"{image} has no {name}"
    return json.loads(line[1])


def names_of_settings() -> list[str]:
    aliases = {name: field.validation_alias for name, field in Settings.model_fields.items()}
    return [str(alias or f"DELTADEX_{name.upper()}") for name, alias in aliases.items()]


def test_hadolint_has_nothing_to_say_about_the_dockerfile():
    result = run_tool("hadolint", str(DOCKERFILE))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_files_follow_the_compose_specification(name):
    result = run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / name))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_yamllint_has_nothing_to_say_about_the_compose_files(name):
    result = run_tool("yamllint", "--strict", "--config-data", YAMLLINT, str(ROOT / name))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("migrate", processes.MIGRATE),
        ("api", processes.api("0.0.0.0", 8000)),
        ("worker", processes.WORKER),
        ("beat", processes.BEAT),
    ],
)
def test_compose_runs_the_commands_of_deltadex_up(service, command):
    assert services()[service]["command"] == list(command)


@pytest.mark.parametrize(("image", "command"), [("api", processes.api("0.0.0.0", 8000)), ("worker", processes.WORKER)])
def test_the_images_run_the_commands_of_deltadex_up(image, command):
    assert instruction(image, "CMD") == list(command)


@pytest.mark.parametrize("service", ["migrate", "api", "worker", "beat"])
def test_compose_sets_only_variables_that_the_settings_read(service):
    assert set(services()[service]["environment"]) <= set(names_of_settings())


def test_the_gpu_override_sets_only_variables_that_the_settings_read():
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
    assert set(override["services"]["worker"]["environment"]) <= set(names_of_settings())


def test_the_addresses_in_compose_name_its_services():
    environment = services()["api"]["environment"]
    database_url = re.sub(r"\$\{[^}]*\}", "password", environment["DATABASE_URL"])
    assert make_url(database_url).host in services()
    assert make_url(environment["REDIS_URL"]).host in services()


def test_the_database_in_compose_is_the_one_that_is_made():
    made = services()["postgres"]["environment"]
    used = make_url(re.sub(r"\$\{[^}]*\}", "password", services()["api"]["environment"]["DATABASE_URL"]))
    assert (used.username, used.database) == (made["POSTGRES_USER"], made["POSTGRES_DB"])


@pytest.mark.parametrize("service", ["api", "worker", "beat"])
def test_nothing_starts_before_the_tables_are_there(service):
    assert services()[service]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("service", ["postgres", "redis", "migrate", "api", "worker", "beat"])
def test_every_service_says_whether_it_is_healthy_or_why_not(service):
    own = services()[service].get("healthcheck")
    image = services()[service].get("build", {}).get("target")
    assert own or instruction(image, "HEALTHCHECK")


def test_the_health_checks_run_modules_and_routes_that_exist():
    module = instruction("worker", "HEALTHCHECK")[-1]
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
    assert "/healthz" in instruction("api", "HEALTHCHECK")[-1]


def test_the_api_image_has_no_torch():
    steps = images()["build-api"] + images()["api"]
    assert "[worker]" not in steps
    assert "torch" not in steps


@pytest.mark.parametrize("image", ["api", "worker"])
def test_the_images_do_not_run_as_root(image):
    assert images()[image].startswith("runtime AS")
    assert re.search(r"^USER [1-9]\d*$", images()["runtime"], flags=re.MULTILINE)


def test_no_password_or_token_is_written_down():
    for file in (DOCKERFILE, *(ROOT / name for name in COMPOSE_FILES)):
        for line in file.read_text().splitlines():
            code = re.sub(r"\$\{[^}]*\}", "${}", line.split("#")[0])
            for value in re.findall(r"(?:PASSWORD|TOKEN|SECRET)\s*[:=]\s*(\S+)", code):
                assert value.startswith("${"), line


def test_the_build_context_lets_through_what_the_images_are_built_from():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    wanted = {*PACKAGES, "constraints.txt", "pyproject.toml", "README.md"}
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == wanted


def test_what_the_packages_hold_beside_code_is_declared_and_so_installed():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        folder = ROOT / package
        installed = {file for pattern in declared.get(package, []) for file in folder.glob(pattern)}
        beside_code = {file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
        assert beside_code <= installed


def test_make_help_lists_every_target():
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert [line.split()[1] for line in listed.splitlines()] == phony[1].split()


def test_the_pinned_versions_hold_what_the_project_asks_for():
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= pinned


def test_the_operations_page_lists_every_setting_and_its_default():
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == names_of_settings()
    listed = {name: default.strip("` ") for name, default in rows}
    for name, default in listed.items():
        field = Settings.model_fields[name.removeprefix("DELTADEX_").lower()]
        if field.default is None:
            assert not default[0].isdigit(), name
        elif isinstance(field.default, tuple):
            assert tuple(default.split(",")) == field.default, name
        else:
            assert type(field.default)(default) == field.default, name
