from __future__ import annotations

import pytest

from catalog.errors import UnknownFeature
from catalog.settings import Settings
from workers import main


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UnknownFeature("There is no feature 'delta'."), "unknown_feature: There is no feature 'delta'."),
        (TypeError("unexpected keyword"), r"cannot start: TypeError\('unexpected keyword'\)"),
    ],
)
def test_worker_that_cannot_start_exits(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str):
    def fail(conf: Settings) -> None:
        raise error

    monkeypatch.setattr(main, "Runtime", fail)
    with pytest.raises(SystemExit, match=message):
        main._start()
