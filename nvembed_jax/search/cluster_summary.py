"""Clusters to look at: texts and words that stand for each, a page of Markdown, and a picture."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from nvembed_jax.data.identity import normalized, words
from nvembed_jax.data.writers import PendingFile
from nvembed_jax.search.clusters import NONE, Clusters
from nvembed_jax.search.mining_texts import TextStore

PLOT_SUFFIXES = (".pdf", ".png", ".svg")
_LOOKED_AT = 20  # of the nearest texts, of which some may be the same
_TEXTS_OF_WORDS = 100_000
_LEAST = 2  # texts of a cluster that a word stands in
_BLOCK = 1024
_PLOTTED = 5000
_COLOURS = 20
_CHARACTERS = 160


def representative_texts(clusters: Clusters, texts: TextStore, count: int) -> list[list[str]]:
    """Texts of each cluster nearest to its centre, at most `count`, each once."""
    found = []
    for rows in clusters.nearest(_LOOKED_AT):
        distinct: dict[str, str] = {}
        for text in texts.texts(rows):
            distinct.setdefault(normalized(text), text)
        found.append(list(distinct.values())[:count])
    return found


def distinguishing_words(clusters: Clusters, texts: TextStore, count: int) -> list[list[str]]:
    """Words that stand in more texts of a cluster than elsewhere, at most `count` of each.

    Ranked by p log(p / q): p is the share of the cluster's texts with the word, q that of all
    texts. Words that stand everywhere come out near 0, without a list of such words. Taken from
    at most 100,000 texts, evenly.
    """
    step = -(-len(clusters.labels) // _TEXTS_OF_WORDS)
    rows = np.arange(0, len(clusters.labels), max(1, step))
    overall: Counter[str] = Counter()
    own: list[Counter[str]] = [Counter() for _ in clusters.sizes]
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        for row, text in zip(block, texts.texts(block), strict=True):
            found = {word for word in words(text) if len(word) > 1 and not word.isdecimal()}
            overall.update(found)
            if clusters.labels[row] != NONE:
                own[clusters.labels[row]].update(found)
    labels = clusters.labels[rows]
    sizes = np.bincount(labels[labels != NONE], minlength=len(own))
    return [
        _ranked(counts, int(size), overall, len(rows))[:count]
        for counts, size in zip(own, sizes, strict=True)
    ]


def summary_markdown(clusters: Clusters, texts: TextStore, facts: Sequence[tuple[str, str]]) -> str:
    """The page: facts, and a row a cluster with size, words and the three nearest texts."""
    nearest = representative_texts(clusters, texts, 3)
    found = distinguishing_words(clusters, texts, 8)
    total = len(clusters.labels)
    lines = ["# Clusters", "", *(f"- {name}: {_cell(value)}" for name, value in facts), ""]
    lines += ["| cluster | texts | share | words | nearest to the centre |"]
    lines += ["|---:|---:|---:|---|---|"]
    for number, size in enumerate(clusters.sizes):
        examples = "<br>".join(_cell(text) for text in nearest[number])
        listed = _cell(", ".join(found[number]))
        lines.append(f"| {number} | {size:,} | {size / total:.1%} | {listed} | {examples} |")
    return "\n".join(lines) + "\n"


def check_plot(path: Path) -> None:
    """Raises where a picture could not be written to `path`, before any work is done."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"{path}: cannot draw to this suffix; expected {', '.join(PLOT_SUFFIXES)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError(
            f'{path}: pictures need matplotlib: pip install "nvembed_jax[eval]"'
        ) from None
    PendingFile(path).discard()


def draw_clusters(
    path: Path, embeddings: Float[np.ndarray, "N D"], clusters: Clusters, seed: int = 0
) -> None:
    """Draws the first two principal components of at most 5,000 rows, evenly taken.

    Args:
        path: .png, .svg or .pdf.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    rows = np.arange(0, len(embeddings), max(1, -(-len(embeddings) // _PLOTTED)))
    pca = PCA(2, random_state=seed)
    points = pca.fit_transform(np.asarray(embeddings[rows], np.float32))
    shares = pca.explained_variance_ratio_
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    for chosen, colour, name in _legend(clusters.labels[rows], len(clusters.sizes)):
        axes.scatter(*points[chosen].T, s=6, color=colour, label=name, linewidths=0)
    axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second principal component ({shares[1]:.0%})")
    axes.legend(title="cluster", markerscale=3, fontsize="small", loc="best", ncols=2)
    suffix, file = path.suffix.lower()[1:], io.BytesIO()
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix)
    with rc_context({"svg.hashsalt": "clusters"}):  # the same file each time
        figure.savefig(file, format=suffix, dpi=150, metadata=dateless)
    pending = PendingFile(path)
    try:
        pending.file.write(file.getvalue())
        pending.commit()
    finally:
        pending.discard()


def _legend(labels: Int[np.ndarray, " M"], count: int) -> list[tuple[np.ndarray, str | tuple, str]]:
    """(which rows, colour, name): rows in none and small clusters first, so below the others."""
    import matplotlib

    colours = [matplotlib.colormaps["tab20"](i) for i in range(_COLOURS)]
    groups: list[tuple[np.ndarray, str | tuple, str]] = [
        (labels == NONE, "#dddddd", "none"),
        (labels >= _COLOURS, "#999999", f"{_COLOURS} to {count - 1}"),
    ]
    groups += [(labels == i, colours[i], str(i)) for i in range(min(count, _COLOURS))]
    return [group for group in groups if group[0].any()]


def _ranked(counts: Counter[str], size: int, overall: Counter[str], total: int) -> list[str]:
    """Words by falling p log(p / q), those below the average left out."""
    scores = {}
    for word, number in counts.items():
        p, q = number / max(1, size), overall[word] / total
        if number >= _LEAST and p > q:
            scores[word] = p * np.log(p / q)
    return sorted(scores, key=lambda word: (-scores[word], word))


def _cell(text: str) -> str:
    """A text in one line of a table, cut where it is long."""
    line = " ".join(text.split())
    if len(line) > _CHARACTERS:
        line = line[: _CHARACTERS - 1].rstrip() + "…"
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
