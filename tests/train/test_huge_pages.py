"""Huge pages: asked for once, by the entry points only, and only where the system grants them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvembed_jax.train import huge_pages

SCRIPT = """
import os, sys
from nvembed_jax.train.huge_pages import restart_with_huge_pages
print(os.getpid(), os.environ.get("GLIBC_TUNABLES", ""), flush=True)
restart_with_huge_pages()
print("done", sys.argv[1:])
"""


@pytest.fixture
def granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mode = tmp_path / "enabled"
    mode.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_MODE", mode)
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("NVEMBED_HUGE_PAGES", raising=False)
    return mode


def test_asked_for_where_granted(granted: Path):
    assert huge_pages.huge_pages_help()


@pytest.mark.parametrize(
    "change",
    [
        lambda m, mode: m.setenv("NVEMBED_HUGE_PAGES", "0"),
        lambda m, mode: m.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0"),
        lambda m, mode: mode.write_text("always madvise [never]\n"),
        lambda m, mode: mode.write_text("[always] madvise never\n"),
        lambda m, mode: mode.unlink(),
        lambda m, mode: m.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.31")),
        lambda m, mode: m.setattr(huge_pages.platform, "libc_ver", lambda: ("", "")),
    ],
)
def test_else_left_alone(granted: Path, monkeypatch: pytest.MonkeyPatch, change):
    change(monkeypatch, granted)
    assert not huge_pages.huge_pages_help()


def test_restarts_once_as_the_same_process():
    env = {k: v for k, v in os.environ.items() if k != "NVEMBED_HUGE_PAGES"}
    env["GLIBC_TUNABLES"] = "glibc.malloc.arena_max=4"
    command = [sys.executable, "-c", SCRIPT, "--flag", "a b"]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    *lines, done = out.stdout.strip().splitlines()
    assert done == "done ['--flag', 'a b']"
    assert len({line.split()[0] for line in lines}) == 1
    if huge_pages.huge_pages_help():
        assert [line.split()[1] for line in lines] == [
            "glibc.malloc.arena_max=4",
            "glibc.malloc.arena_max=4:glibc.malloc.hugetlb=1",
        ]
    else:
        assert len(lines) == 1
