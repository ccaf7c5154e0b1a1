"""Folders that appear whole or not at all: written under a hidden temporary name, then renamed.

A living writer holds a lock on its temporary folder; one without a holder is left over from a
killed process and is removed by the next writer of the same target.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_folder(
    target: str | Path, *, needs_bytes: int = 0, overwrite: bool = False
) -> Iterator[Path]:
    """Yields a temporary folder that becomes `target` when the block ends without an error.

    Args:
        target: must not exist, or be an empty folder, unless `overwrite`.
        needs_bytes: refuse at once if the disk has less room.

    Raises:
        FileExistsError: `target` is there and not empty. OSError: no room, or not writable.
        Whatever the block raises: the temporary folder is then removed.
    """
    target = Path(target).absolute()
    _check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    free = shutil.disk_usage(target.parent).free
    if free < needs_bytes:
        raise OSError(
            errno.ENOSPC, f"{needs_bytes:,} bytes are needed, {free:,} are free", str(target.parent)
        )
    folder, lock = _locked_folder(target)
    try:
        yield folder
        _sync_tree(folder)
        _replace(folder, target, overwrite)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(
                errno.ENOSPC, "the disk is full; nothing was left behind", str(target)
            ) from error
        raise
    finally:
        os.close(lock)


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file; give the name of a new folder")
    if not overwrite and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty; remove it or give another name")


def _pattern(target: Path) -> str:
    return f".{target.name}.partial-"


def _locked_folder(target: Path) -> tuple[Path, int]:
    while True:
        folder = target.parent / f"{_pattern(target)}{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: nobody takes others' folders away
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # else another writer took it for a leftover before it was locked
            return folder, lock
        os.close(lock)


def _remove_leftovers(target: Path) -> None:
    for path in target.parent.iterdir():
        if not path.name.startswith(_pattern(target)) or not path.is_dir():
            continue
        with suppress(FileNotFoundError):  # gone already
            lock = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # its writer lives, or the file system has no locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            os.close(lock)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for path in [*(os.path.join(root, name) for name in files), root]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _replace(folder: Path, target: Path, overwrite: bool) -> None:
    old = None
    if overwrite and target.exists():
        old = target.parent / f"{_pattern(target)}{uuid.uuid4().hex[:12]}"
        target.rename(old)
    os.rename(folder, target)  # onto an empty folder too
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    if old is not None:
        shutil.rmtree(old)
