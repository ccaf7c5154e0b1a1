"""How much of what clients sent is held at a time, by all requests together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nvembed_jax.serve.errors import queue_full

BODIES = 16  # of the largest size


class BodyRoom:
    """A bound of bytes, which requests take from while their bodies come in.

    Attributes:
        most: bytes. held: taken now.
    """

    def __init__(self, largest: int):
        self.most, self.held = BODIES * largest, 0

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Yields what takes so many bytes more; all are given back at the end.

        Raises:
            ServeError: from it, 429: there is no room.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self.held + size > self.most:
                raise queue_full(1)
            self.held += size
            mine += size

        try:
            yield take
        finally:
            self.held -= mine
