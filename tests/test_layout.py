"""The floors of the package hold: a file imports only lower floors, or files of its own folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nvembed_jax"
FLOORS = {
    "version": 0, "batch": 1, "config": 1, "sharding": 1, "runtime": 1, "codes": 1,
    "model": 2, "text": 2, "checkpoint": 3, "data": 3, "train": 4, "runner": 3.5, "encoder": 4,
    "search": 5, "compress": 5, "calibration": 5.5, "eval": 6, "serve": 6, "corpus": 6,
    "interop": 6, "bench": 6,
    "cli": 7, "__main__": 8, "__init__": 8,
}  # fmt: skip
FORBIDDEN = {"model": {"text"}, "data": {"search"}, "search": {"serve"}, "eval": {"serve"}}
ONE_FILE = ("torch", "mteb", "fastapi", "ray", "transformers")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, whether the import stands at the top level of the file)."""
    tree = ast.parse(path.read_text("utf8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in tree.body) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node in tree.body))
            if node.module == "nvembed_jax":
                found += [(f"nvembed_jax.{a.name}", node in tree.body) for a in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    own = top(path)
    assert own in FLOORS, f"{own} has no floor: add it to the layout"
    if own in ("__init__", "__main__"):
        return
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[0] != "nvembed_jax" or len(parts) == 1 or parts[1] == "__version__":
            continue
        target = parts[1]
        assert target == own or FLOORS[target] < FLOORS[own], f"{path.name} imports {module}"
        assert target not in FORBIDDEN.get(own, ()), f"{path.name} imports {module}"


def test_text_knows_no_jax():
    for path in (PACKAGE / "text").rglob("*.py"):
        assert not [m for m, _ in imports(path) if m.split(".")[0] in ("jax", "flax")], path


@pytest.mark.parametrize("name", ONE_FILE)
def test_heavy_packages_are_imported_lazily_in_one_file(name: str):
    users = {
        p: top_level for p in modules() for m, top_level in imports(p) if m.split(".")[0] == name
    }
    assert len(users) <= 1, f"{name} is imported in {sorted(map(str, users))}"
    assert not any(users.values()), f"{name} is imported at the top of {sorted(map(str, users))}"


def test_files_and_functions_stay_small():
    for path in modules():
        source = path.read_text("utf8")
        assert source.count("\n") <= 350, f"{path}: {source.count(chr(10))} lines"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or 0) - node.lineno + 1
                assert size <= 60, f"{path}:{node.lineno} {node.name}: {size} lines"
