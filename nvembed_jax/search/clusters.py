"""Clusters of embeddings by scikit-learn's k-means or HDBSCAN, and the rows that stand for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nvembed_jax.codes import unit
from nvembed_jax.search.topk import check_finite

METHODS = ("kmeans", "hdbscan")
NONE = -1  # the label of a row in no cluster
MOST_BY_DEFAULT = 50  # clusters of k-means
MIN_SIZE = 10
HDBSCAN_ROWS = 50_000  # its time grows with their square
HDBSCAN_DIMS = 50  # principal components that it sees: of more, distances hardly differ
_BATCH = 4096
_BLOCK = 16384


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How rows are put together.

    Attributes:
        method: "kmeans" (every row is in a cluster; any number of rows), or "hdbscan" (finds how
            many clusters there are, and leaves out what is in none; up to 50,000 rows).
        k: clusters of k-means; None: the square root of half the rows, at most 50.
        min_size: rows of the smallest cluster of HDBSCAN; None: 10.
        seed: of k-means and of principal components.

    Raises:
        ValueError: an unknown method, or an option of the other method.
    """

    method: str = "kmeans"
    k: int | None = None
    min_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            near = difflib.get_close_matches(self.method, METHODS, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"expected {' or '.join(METHODS)}"
            raise ValueError(f"unknown method {self.method!r}; {mend}")
        if self.k is not None and self.method != "kmeans":
            raise ValueError("k is an option of kmeans; hdbscan finds the number of clusters")
        if self.min_size is not None and self.method != "hdbscan":
            raise ValueError("min_size is an option of hdbscan; kmeans takes k")
        for name, least in (("k", 1), ("min_size", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")

    def check_count(self, count: int) -> None:
        """Raises a ValueError where so many texts cannot be clustered thus."""
        if self.k is not None and self.k > count:
            raise ValueError(
                f"k is {self.k}, and there are {count} texts; expected at most as many"
            )
        if self.method != "hdbscan":
            return
        if count > HDBSCAN_ROWS:
            raise ValueError(
                f"{count:,} texts are too many for hdbscan, whose time grows with their square; "
                f"expected at most {HDBSCAN_ROWS:,}: use kmeans, or a sample"
            )
        least = self.min_size or MIN_SIZE
        if count < least:
            raise ValueError(f"min_size is {least}, and there are {count} texts; expected no fewer")


class Clusters(NamedTuple):
    """Clusters, the largest first.

    Attributes:
        labels: cluster of each row, from 0; -1: in none.
        scores: cosine of each row with the centre of its cluster; 0 for a row in none.
        centres: means of the clusters' rows, of length one.
        sizes: rows of each cluster.
    """

    labels: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    centres: Float[np.ndarray, "K D"]
    sizes: Int[np.ndarray, " K"]

    def nearest(self, count: int) -> list[Int[np.ndarray, " n"]]:
        """Rows of each cluster nearest to its centre, at most `count`, the nearest first."""
        order = np.lexsort((-self.scores, self.labels))
        starts = np.searchsorted(self.labels[order], np.arange(len(self.sizes)))
        sizes = np.minimum(self.sizes, count)
        return [order[a : a + n] for a, n in zip(starts, sizes, strict=True)]


def cluster_embeddings(
    embeddings: Float[np.ndarray, "N D"], options: ClusterOptions | None = None
) -> Clusters:
    """Puts rows together; the same rows and options give the same clusters.

    Source: Sculley 2010 (mini-batch k-means); Campello et al. 2013 (HDBSCAN).

    Args:
        embeddings: of length one, so that distances rank as cosines do; may be a memory map.

    Raises:
        ValueError: fewer rows than clusters, too many for HDBSCAN, NaN or infinity.
        ImportError: scikit-learn is missing (the extra "eval").
    """
    options = options or ClusterOptions()
    check_sklearn()
    options.check_count(len(embeddings))
    for start, block in _blocks(embeddings):
        check_finite(block, "text", start)
    find = _kmeans if options.method == "kmeans" else _hdbscan
    labels = _by_size(find(embeddings, options))
    centres = _centres(embeddings, labels)
    scores = np.zeros(len(labels), np.float32)
    for start, block in _blocks(embeddings):
        own = labels[start : start + len(block)]
        inside = np.flatnonzero(own != NONE)
        cosines = np.einsum("ND,ND->N", unit(block[inside]), centres[own[inside]])
        scores[start + inside] = cosines
    return Clusters(labels, scores, centres, np.bincount(labels[labels != NONE]))


def check_sklearn() -> None:
    """Raises ImportError, which names the extra, where scikit-learn is missing."""
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError:
        raise ImportError('clusters need scikit-learn: pip install "nvembed_jax[eval]"') from None


def _kmeans(embeddings: np.ndarray, options: ClusterOptions) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    k = options.k or max(1, min(MOST_BY_DEFAULT, round((len(embeddings) / 2) ** 0.5)))
    arguments: Any = {"batch_size": _BATCH, "n_init": 3, "random_state": options.seed}
    return np.asarray(MiniBatchKMeans(k, **arguments).fit(embeddings).labels_, np.int64)


def _hdbscan(embeddings: np.ndarray, options: ClusterOptions) -> np.ndarray:
    from sklearn.cluster import HDBSCAN
    from sklearn.decomposition import PCA

    rows = np.asarray(embeddings, np.float32)
    if rows.shape[1] > HDBSCAN_DIMS < len(rows):
        rows = PCA(HDBSCAN_DIMS, random_state=options.seed).fit_transform(rows)
    arguments: Any = {"min_cluster_size": options.min_size or MIN_SIZE, "copy": True}
    return np.asarray(HDBSCAN(**arguments).fit(rows).labels_, np.int64)


def _by_size(labels: np.ndarray) -> Int[np.ndarray, " N"]:
    """Labels from 0 by falling size, of equal sizes by the first row; negative ones as `NONE`."""
    inside = labels >= 0
    _, first, inverse, sizes = np.unique(
        labels[inside], return_index=True, return_inverse=True, return_counts=True
    )
    out = np.full(len(labels), NONE)
    out[inside] = np.argsort(np.lexsort((first, -sizes)))[inverse]
    return out


def _centres(embeddings: np.ndarray, labels: Int[np.ndarray, " N"]) -> Float[np.ndarray, "K D"]:
    from scipy.sparse import csr_array

    count = int(labels.max(initial=NONE)) + 1
    sums = np.zeros((count, embeddings.shape[1]), np.float64)
    for start, block in _blocks(embeddings):
        own = labels[start : start + len(block)]
        inside = np.flatnonzero(own != NONE)
        places = (own[inside], inside)
        members = csr_array((np.ones(len(inside)), places), shape=(count, len(block)))
        sums += members @ block
    return unit(sums).astype(np.float32)


def _blocks(embeddings: np.ndarray) -> Iterator[tuple[int, Float[np.ndarray, "B D"]]]:
    for start in range(0, len(embeddings), _BLOCK):
        yield start, np.asarray(embeddings[start : start + _BLOCK], np.float32)
