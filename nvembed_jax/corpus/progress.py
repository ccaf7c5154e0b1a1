"""How far a corpus is: a bar on terminals, elsewhere a line a minute; both with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nvembed_jax.runtime import progress_bar

EVERY_S = 60.0


class Progress:
    """Texts done of those of a shard; use it as a context manager.

    Args:
        total: texts in all. done: by earlier runs.
        say: gets a line now and then where standard error is no terminal.
        clock: seconds that rise.
    """

    def __init__(
        self,
        total: int,
        done: int,
        say: Callable[[str], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.done = total, done
        self._before, self._say, self._clock = done, say, clock
        self._began = self._said = clock()
        self._bar = progress_bar(total, None)
        # What earlier runs did says nothing about the speed of this one.
        self._bar.n = self._bar.initial = done

    def add(self, texts: int) -> None:
        """Counts texts; a negative number takes back those of a part that is begun anew."""
        self.done += texts
        self._bar.update(texts)
        now = self._clock()
        if self._bar.disable and now - self._said >= EVERY_S:
            self._said = now
            self._say(self.line())

    def line(self) -> str:
        """Texts done, speed of this run, and the time that is left at that speed."""
        speed = (self.done - self._before) / max(self._clock() - self._began, 1e-9)
        head = f"{self.done:,} of {self.total:,} texts"
        if speed <= 0:
            return head
        return f"{head}, {speed:,.0f} a second, {_duration((self.total - self.done) / speed)} left"

    @property
    def made(self) -> int:
        """Texts done since this was made."""
        return self.done - self._before

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
