"""Quantile mapping: the new score that as many pairs reach as reach the old one.

t_new = Q_new(F_old(t_old)), from pairs without labels that both models scored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

MOST_POINTS = 2001


class QuantileMap(NamedTuple):
    """Scores of the two models of equal rank, both rising [M]; in between, straight lines.

    Outside of them nothing is known: scores go to the nearest end.
    """

    old: Float[np.ndarray, " M"]
    new: Float[np.ndarray, " M"]

    def to_new(self, scores: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
        """Old scores on the new model's scale; thresholds keep the number of pairs they flag."""
        return np.asarray(np.interp(scores, *_line(self.old, self.new)))

    def to_old(self, scores: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
        """New scores on the old model's scale."""
        return np.asarray(np.interp(scores, *_line(self.new, self.old)))


def quantile_map(
    old: Float[np.ndarray, " N"], new: Float[np.ndarray, " N"], most: int = MOST_POINTS
) -> QuantileMap:
    """The map of N pairs' scores; exact where there are at most `most`, else at ranks that lie
    close together at both ends, where thresholds are.

    Raises:
        ValueError: fewer than two pairs, or scores that are all equal.
    """
    if len(old) < 2 or np.ptp(old) == 0 or np.ptp(new) == 0:
        raise ValueError(
            f"{len(old)} pairs with {len(np.unique(old))} different old and {len(np.unique(new))} "
            f"different new scores; expected at least two of each"
        )
    ranks = _ranks(len(old), most)
    return QuantileMap(
        np.sort(np.asarray(old, np.float64))[ranks], np.sort(np.asarray(new, np.float64))[ranks]
    )


def _ranks(count: int, most: int) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    tail = np.geomspace(1, count / 2, most // 4)
    even = np.linspace(0, count - 1, most - 2 * len(tail))
    ranks = np.concatenate([[0, count - 1], tail, count - 1 - tail, even])
    return np.unique(np.rint(ranks).astype(np.int64))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of y over rising x. A threshold on several equal scores flags all of them, one just
    above none: there the line leaps from the first one's y to the last one's."""
    values, first, counts = np.unique(x, return_index=True, return_counts=True)
    tied = counts > 1
    corners = np.concatenate([values, np.nextafter(values[tied], np.inf)])
    heights = np.concatenate([y[first], y[(first + counts - 1)[tied]]])
    order = np.argsort(corners, kind="stable")
    return corners[order], heights[order]
