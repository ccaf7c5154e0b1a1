"""What goes to standard error while a command works: a progress bar on terminals, and notes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


def note(message: str) -> None:
    """One line on standard error that is no error."""
    print(f"nvembed: {message}", file=sys.stderr)


@contextmanager
def progress_bar(
    total: int | None, unit: str, shown: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many are done; by default terminals only see a bar."""
    from tqdm import tqdm

    with tqdm(
        total=total, unit=unit, disable=None if shown is None else not shown, leave=False
    ) as bar:
        yield lambda done: (bar.update(done - bar.n), None)[1]


def note_skipped(skipped: Sequence[str]) -> None:
    """Says which files of a folder were not read."""
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        note(f"passed over {len(skipped)} files that are no text: {', '.join(skipped[:3])}{more}")


def encode_block() -> int:
    """Texts encoded at a time: few on CPUs, where the bar should move; many on accelerators."""
    import jax

    return 512 if jax.default_backend() == "cpu" else 16384
