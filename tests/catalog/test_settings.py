from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from catalog.auth.viewer import MIN_KEY_LENGTH
from catalog.errors import Misconfigured, NotRunning
from catalog.settings import Settings, with_driver

FIELDS = Settings.model_fields


def variable(field: str) -> str:
    """The environment variable that sets a field."""
    return str(FIELDS[field].validation_alias or f"DELTADEX_{field.upper()}")


VARIABLES = {field: variable(field) for field in FIELDS}
SECRETS = [field for field, info in FIELDS.items() if "SecretStr" in str(info.annotation)]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DELTADEX_DATA_DIR", str(tmp_path))


def write_run_file(folder: Path, content: object) -> None:
    (folder / "run.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h:1/d?x=y", "postgresql+psycopg://u:p@h:1/d?x=y"),
        ("postgresql://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_postgres_url_names_the_driver(monkeypatch: pytest.MonkeyPatch, url: str, expected: str):
    monkeypatch.setenv("DATABASE_URL", url)
    assert with_driver(url) == Settings().require_database_url() == expected


def test_addresses_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write_run_file(tmp_path, {"database_url": "postgresql://other/d", "redis_url": "redis://other"})
    monkeypatch.setenv("DATABASE_URL", "postgresql://env/d")
    monkeypatch.setenv("REDIS_URL", "redis://env")
    conf = Settings()
    assert conf.require_database_url() == "postgresql+psycopg://env/d"
    assert conf.require_redis_url() == "redis://env"


def test_missing_addresses_are_read_from_a_running_deltadex(tmp_path: Path):
    write_run_file(tmp_path, {"database_url": "postgresql://h/d", "redis_url": "redis://h", "api_url": "http://h:9"})
    conf = Settings()
    assert conf.require_database_url() == "postgresql+psycopg://h/d"
    assert conf.require_redis_url() == "redis://h"
    assert conf.api_url() == "http://h:9"


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", "null", "3"])
def test_missing_address_raises_not_running(tmp_path: Path, content: str | None):
    if content is not None:
        write_run_file(tmp_path, content)
    conf = Settings()
    with pytest.raises(NotRunning, match="DATABASE_URL"):
        conf.require_database_url()
    with pytest.raises(NotRunning, match="REDIS_URL"):
        conf.require_redis_url()
    assert conf.api_url() == "http://127.0.0.1:8000"


def test_empty_address_counts_as_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "")
    with pytest.raises(NotRunning):
        Settings().require_database_url()


def test_api_url_comes_from_the_settings_when_nothing_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DELTADEX_HOST", "10.0.0.7")
    monkeypatch.setenv("DELTADEX_PORT", "9000")
    assert Settings().api_url() == "http://10.0.0.7:9000"


def test_token_is_not_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    conf = Settings()
    assert "hf_secret" not in repr(conf)
    assert conf.hf_token is not None
    assert conf.hf_token.get_secret_value() == "hf_secret"


@pytest.mark.parametrize(("name", "value"), [("BATCH", "0"), ("MAX_ATTEMPTS", "0"), ("DTYPE", "int8"), ("PORT", "x")])
def test_invalid_setting_is_rejected(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"DELTADEX_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_folders_are_in_the_data_directory(tmp_path: Path):
    conf = Settings()
    assert (conf.bases_dir, conf.downloads_dir) == (tmp_path / "bases", tmp_path / "downloads")


def test_list_of_secret_settings_is_complete():
    expected = {"HF_TOKEN", "DELTADEX_TOKEN_KEY", "DELTADEX_API_KEY", "DELTADEX_USER_TOKEN", "ADMIN_API_KEY"}
    assert {VARIABLES[field] for field in SECRETS} >= expected | {"DELTADEX_WEBHOOK_SECRET"}


@pytest.mark.parametrize("blank", ["", " ", "\n", " \t\r\n"])
@pytest.mark.parametrize("field", SECRETS)
def test_blank_secret_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, field: str, blank: str):
    monkeypatch.setenv(VARIABLES[field], blank)
    assert getattr(Settings(), field) is None
    assert getattr(Settings(**{field: SecretStr(blank)}), field) is None


@pytest.mark.parametrize("blank", ["", " \n"])
@pytest.mark.parametrize("field", sorted(set(FIELDS) - {"data_dir"}))
def test_blank_setting_has_its_default(monkeypatch: pytest.MonkeyPatch, field: str, blank: str):
    default = getattr(Settings(), field)
    monkeypatch.setenv(VARIABLES[field], blank)
    assert getattr(Settings(), field) == default


@pytest.mark.parametrize("field", SECRETS)
def test_whitespace_around_a_secret_is_removed(monkeypatch: pytest.MonkeyPatch, field: str):
    monkeypatch.setenv(VARIABLES[field], " a secret with words in it\r\n")
    assert getattr(Settings(), field).get_secret_value() == "a secret with words in it"


def test_whitespace_around_an_address_is_removed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example\n")
    assert Settings().hf_endpoint == "https://hub.example"


@pytest.mark.parametrize("name", ["ADMIN_API_KEY", "DELTADEX_WEBHOOK_SECRET"])
def test_short_protecting_secret_is_rejected(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "x" * (MIN_KEY_LENGTH - 1) + " ")
    with pytest.raises(Misconfigured, match=f"{name} has 19 characters.*openssl rand") as error:
        Settings()
    assert "xxx" not in str(error.value)


@pytest.mark.parametrize("name", ["ADMIN_API_KEY", "DELTADEX_WEBHOOK_SECRET"])
def test_secret_of_minimal_length_is_accepted(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "x" * MIN_KEY_LENGTH)
    assert Settings() is not None
