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
    total: int | None, unit: str, scaled: bool = False
) -> Iterator[Callable[..., None]]:
    """A bar on standard error, on terminals only; yields a function of (done) or (done, total)."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, unit_scale=scaled, disable=None, leave=False) as bar:

        def show(done: int, total: int | None = None) -> None:
            if total is not None:
                bar.total = total
            bar.update(done - bar.n)

        yield show


def note_skipped(skipped: Sequence[str]) -> None:
    """Says which files of a folder were not read."""
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        note(f"passed over {len(skipped)} files that are no text: {', '.join(skipped[:3])}{more}")


def encode_block() -> int:
    """Texts encoded at a time: few on CPUs, where the bar should move; many on accelerators."""
    import jax

    return 512 if jax.default_backend() == "cpu" else 16384
