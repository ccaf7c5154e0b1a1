"""The notebooks and the README's Python run from top to bottom, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def run(cells: list[str]) -> dict:
    scope: dict = {}
    for cell in cells:
        exec(compile(cell, "<documentation>", "exec"), scope)
    return scope


@pytest.mark.parametrize("path", sorted((ROOT / "colab").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs(path: Path):
    cells = json.loads(path.read_text("utf8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells), "outputs are not committed"
    scope = run(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])
    assert scope["full"].shape == (4, 384)
    assert scope["scores"].argmax(axis=1).tolist() == [0, 1]


def test_python_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf8"), re.S)
    scope = run([block for block in blocks if "nv-embed-v2-jax" not in block])
    assert scope["queries"].shape == (1, 384)
    assert scope["params"]["backbone"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#]+)", page.read_text("utf8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken, broken
