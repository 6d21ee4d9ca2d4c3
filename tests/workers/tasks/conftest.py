from __future__ import annotations

from tests.support.task_encoder import (
    encoder,  # noqa: F401  (a fixture)
    examples,  # noqa: F401  (a fixture)
)
