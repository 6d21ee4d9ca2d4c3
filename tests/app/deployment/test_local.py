"""Tests of the container files without a Docker engine: they are linted, validated and compared with the code."""

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
    """Run a program of this virtual environment, whose folder may not be on the PATH."""
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=60, check=False)


def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def images() -> dict[str, str]:
    """The stages of the Dockerfile by name, with continued lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    return {stage.split("\n")[0].split(" AS ")[1].strip(): stage for stage in stages}


def instruction(image: str, name: str) -> list[str]:
    """The arguments of an instruction in JSON form."""
    line = re.search(rf"^{name} .*?(\[.*\])$", images()[image], flags=re.MULTILINE)
    assert line, f"{image} has no {name}"
    return json.loads(line[1])


def setting_names() -> list[str]:
    aliases = {name: field.validation_alias for name, field in Settings.model_fields.items()}
    return [str(alias or f"DELTADEX_{name.upper()}") for name, alias in aliases.items()]


def test_dockerfile_passes_hadolint():
    result = run_tool("hadolint", str(DOCKERFILE))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_files_match_the_compose_schema(name):
    result = run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / name))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_files_pass_yamllint(name):
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
def test_compose_services_run_the_commands_of_deltadex_up(service, command):
    assert services()[service]["command"] == list(command)


@pytest.mark.parametrize(("image", "command"), [("api", processes.api("0.0.0.0", 8000)), ("worker", processes.WORKER)])
def test_images_run_the_commands_of_deltadex_up(image, command):
    assert instruction(image, "CMD") == list(command)


@pytest.mark.parametrize("service", ["migrate", "api", "worker", "beat"])
def test_compose_sets_only_known_variables(service):
    assert set(services()[service]["environment"]) <= set(setting_names())


def test_gpu_override_sets_only_known_variables():
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
    assert set(override["services"]["worker"]["environment"]) <= set(setting_names())


def test_addresses_in_compose_are_those_of_its_services():
    environment = services()["api"]["environment"]
    database_url = re.sub(r"\$\{[^}]*\}", "password", environment["DATABASE_URL"])
    assert make_url(database_url).host in services()
    assert make_url(environment["REDIS_URL"]).host in services()


def test_database_url_in_compose_matches_the_postgres_service():
    environment = services()["postgres"]["environment"]
    url = make_url(re.sub(r"\$\{[^}]*\}", "password", services()["api"]["environment"]["DATABASE_URL"]))
    assert (url.username, url.database) == (environment["POSTGRES_USER"], environment["POSTGRES_DB"])


@pytest.mark.parametrize("service", ["api", "worker", "beat"])
def test_services_wait_for_the_migrations(service):
    assert services()[service]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("service", ["postgres", "redis", "migrate", "api", "worker", "beat"])
def test_every_service_has_a_health_check(service):
    healthcheck = services()[service].get("healthcheck")
    image = services()[service].get("build", {}).get("target")
    assert healthcheck or instruction(image, "HEALTHCHECK")


def test_health_checks_use_existing_modules_and_routes():
    module = instruction("worker", "HEALTHCHECK")[-1]
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
    assert "/healthz" in instruction("api", "HEALTHCHECK")[-1]


def test_api_image_has_no_torch():
    steps = images()["build-api"] + images()["api"]
    assert "[worker]" not in steps
    assert "torch" not in steps


@pytest.mark.parametrize("image", ["api", "worker"])
def test_images_do_not_run_as_root(image):
    assert images()[image].startswith("runtime AS")
    assert re.search(r"^USER [1-9]\d*$", images()["runtime"], flags=re.MULTILINE)


def test_container_files_contain_no_secrets():
    for file in (DOCKERFILE, *(ROOT / name for name in COMPOSE_FILES)):
        for line in file.read_text().splitlines():
            code = re.sub(r"\$\{[^}]*\}", "${}", line.split("#")[0])
            for value in re.findall(r"(?:PASSWORD|TOKEN|SECRET)\s*[:=]\s*(\S+)", code):
                assert value.startswith("${"), line


def test_build_context_contains_what_the_images_need():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    required = {*PACKAGES, "constraints.txt", "pyproject.toml", "README.md"}
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == required


def test_all_data_files_of_the_packages_are_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        folder = ROOT / package
        installed = {file for pattern in declared.get(package, []) for file in folder.glob(pattern)}
        data_files = {file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
        assert data_files <= installed


def test_make_help_lists_every_target():
    command = ["make", "--no-print-directory", "help"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert [line.split()[1] for line in output.splitlines()] == phony[1].split()


def test_every_dependency_is_pinned():
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    names = {re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    assert names <= pinned


def test_operations_page_lists_every_setting_with_its_default():
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == setting_names()
    documented = {name: default.strip("` ") for name, default in rows}
    for name, default in documented.items():
        field = Settings.model_fields[name.removeprefix("DELTADEX_").lower()]
        if field.default is None:
            assert not default[0].isdigit(), name
        elif isinstance(field.default, bool):
            assert default == str(field.default).lower(), name
        elif isinstance(field.default, tuple):
            assert tuple(default.split(",")) == field.default, name
        else:
            assert type(field.default)(default) == field.default, name
