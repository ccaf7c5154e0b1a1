"""Huge pages for training on CPUs."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Starts this process again, as the same process, once, with its memory in huge pages.

    On CPUs XLA takes the working memory of a step from the system and gives it back behind the
    step; in pages of 4 KiB that costs a third of a small model's step. glibc (2.35 and newer) asks
    for huge ones if GLIBC_TUNABLES says so when a process starts. For entry points, as their first
    act. NVEMBED_HUGE_PAGES=0 leaves the process as it is.
    """
    if huge_pages_help():
        tunables = [part for part in (os.environ.get("GLIBC_TUNABLES"), f"{_TUNABLE}=1") if part]
        env = {**os.environ, "GLIBC_TUNABLES": ":".join(tunables)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)


def huge_pages_help() -> bool:
    """Whether the system gives huge pages to those who ask, and this process has not."""
    library, version = platform.libc_ver()
    return (
        os.environ.get("NVEMBED_HUGE_PAGES") != "0"
        and library == "glibc"
        and tuple(int(part) for part in version.split(".")[:2]) >= (2, 35)
        and _TUNABLE not in os.environ.get("GLIBC_TUNABLES", "")
        and _MODE.exists()
        and "[madvise]" in _MODE.read_text(encoding="ascii")
    )
