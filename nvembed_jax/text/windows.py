"""Texts to tokenised windows, longest first, one window ahead of the one that is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nvembed_jax.text.tokenizer import Encoded, check_texts

WINDOW = 8192  # texts


def checked_inputs(inputs: Any) -> list[str]:
    """One text or several as a list; ValueError names the first that is no valid Unicode string."""
    if isinstance(inputs, str):
        inputs = [inputs]
    elif isinstance(inputs, (bytes, dict)) or not isinstance(inputs, Iterable):
        raise ValueError(f"expected a string or a sequence of strings; got {type(inputs).__name__}")
    texts = list(inputs)
    check_texts(texts)
    return texts


def tokenized_windows(
    texts: list[str], tokenize: Callable[[list[str]], list[Encoded]]
) -> Iterator[tuple[np.ndarray, list[Encoded]]]:
    """Yields (positions in `texts`, their tokens), by falling number of characters, so that texts
    that share a batch are about equally long.
    """
    order = np.argsort([-len(text) for text in texts], kind="stable")
    windows = [order[start : start + WINDOW] for start in range(0, len(order), WINDOW)]
    if not windows:
        return

    def run(window: np.ndarray) -> list[Encoded]:
        return tokenize([texts[i] for i in window])

    with ThreadPoolExecutor(1, thread_name_prefix="nvembed-tokenize") as pool:
        following = pool.submit(run, windows[0])
        for i, window in enumerate(windows):
            encoded = following.result()
            if i + 1 < len(windows):
                following = pool.submit(run, windows[i + 1])
            yield window, encoded
