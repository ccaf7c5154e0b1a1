"""Fixtures that make the task folders of `made_tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_tasks import MADE, write_all, write_task


@pytest.fixture
def make_task(tmp_path):
    """(type, **replaced files) -> its folder, named after the type."""

    def make(type: str, **replaced: Any) -> Path:
        main_score, files = MADE[type]
        return write_task(tmp_path / "sets" / type, type, main_score, **{**files(), **replaced})

    return make


@pytest.fixture
def all_tasks(tmp_path) -> list[Path]:
    return write_all(tmp_path / "sets")
