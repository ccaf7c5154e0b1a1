"""Texts of a file in clusters: a row {id, cluster, score} a text, a summary, and a picture."""

from __future__ import annotations

import itertools
import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.data.records import DEFAULT_FIELD, Record, read_records
from nvembed_jax.data.row_file import check_name, row_writer
from nvembed_jax.data.writers import PendingFile, write_text
from nvembed_jax.search.cluster_summary import check_plot, draw_clusters, summary_markdown
from nvembed_jax.search.clusters import (
    NONE,
    ClusterOptions,
    Clusters,
    check_sklearn,
    cluster_embeddings,
)
from nvembed_jax.search.mining_embeddings import Teacher
from nvembed_jax.search.mining_texts import TextStore
from nvembed_jax.search.text_embeddings import TextEmbeddings, embedding_folder, loaded

_BLOCK = 1024
_DIGITS = 6  # of the scores that are written


class ClusterFiles(NamedTuple):
    """What is written: the rows (.jsonl, also .gz), a page of Markdown, a picture."""

    out: Path
    summary: Path | None = None
    plot: Path | None = None


def cluster_texts(
    source: str | Path,
    files: ClusterFiles,
    model: Teacher | Callable[[], Teacher],
    *,
    options: ClusterOptions | None = None,
    model_name: str = "",
    field: str = DEFAULT_FIELD,
    format: str | None = None,
    on_skip: Callable[[str, str], None] | None = None,
    cache: str | Path | None = None,
    encode_block: int = 2048,
    encoding: dict[str, Any] | None = None,
    show_progress_bar: bool | None = None,
) -> Clusters:
    """Clusters the texts of a file by their embeddings as passages.

    `files.out` has a row {id, cluster, score} a text, in the order of the source: clusters are
    numbered from 0 by size, -1 is none; the score is the cosine with the cluster's centre, null in
    none. A text without any characters is in none, and is not in what is returned.

    Args:
        source, field, format, on_skip: as for `read_records`.
        model: an `Embedder`, or a function that loads one: called when the input was read.
        model_name: for the summary; "": the model's own.
        cache: folder that keeps the embeddings for further runs; None: `OUT.cache`, removed at the
            end. A run that was stopped goes on from there.
        encode_block: texts encoded between two savings. encoding: options of the encoding.

    Raises:
        FileNotFoundError: no such file. ValueError: `FILE:LINE: what is wrong`, or too few texts.
        ImportError: scikit-learn or, for a picture, matplotlib is missing.
    """
    options = options or ClusterOptions()
    _check(source, files)
    store = TextEmbeddings(
        folder=embedding_folder(files.out, cache),
        block=encode_block,
        encoding=encoding or {},
        show_progress_bar=show_progress_bar,
    )
    with tempfile.TemporaryDirectory(prefix="nvembed-cluster-") as folder:
        records = read_records(source, field=field, format=format, on_skip=on_skip)
        scan = _Scan(Path(folder), records)
        if len(scan.texts) < 2:
            raise ValueError(f"{source}: texts in it: {len(scan.texts)}; expected two or more")
        options.check_count(len(scan.texts))
        encoder: Any = loaded(model)
        embeddings = store.texts(encoder, scan.texts)
        clusters = cluster_embeddings(embeddings, options)
        if files.summary is not None:
            named = f"{model_name or encoder.config.name} (fingerprint {encoder.fingerprint})"
            facts = [("model", named), *_facts(clusters, options, scan)]
            write_text(files.summary, summary_markdown(clusters, scan.texts, facts))
        if files.plot is not None:
            draw_clusters(files.plot, embeddings, clusters, options.seed)
        _write(files.out, scan, clusters)
    if cache is None:
        store.remove()
    return clusters


class _Scan:
    """Ids of all records, and the texts of those that have one, on disk."""

    def __init__(self, folder: Path, records: Iterator[Record]) -> None:
        self.ids, self.texts = TextStore(folder / "ids"), TextStore(folder / "texts")
        self.has_text = array("b")
        for record in records:
            text = record.full_text
            self.ids.add(record.id)
            self.has_text.append(bool(text.strip()))
            if self.has_text[-1]:
                self.texts.add(text)


def _write(out: Path, scan: _Scan, clusters: Clusters) -> None:
    with row_writer(out) as write:
        for id_, label, score in _rows(scan, clusters):
            write({"id": id_, "cluster": label, "score": score})


def _rows(scan: _Scan, clusters: Clusters) -> Iterator[tuple[str, int, float | None]]:
    place = itertools.count()
    for start in range(0, len(scan.ids), _BLOCK):
        block = range(start, min(start + _BLOCK, len(scan.ids)))
        for number, id_ in zip(block, scan.ids.texts(block), strict=True):
            row = next(place) if scan.has_text[number] else None
            if row is None or clusters.labels[row] == NONE:
                yield id_, NONE, None
            else:
                score = round(float(clusters.scores[row]), _DIGITS)
                yield id_, int(clusters.labels[row]), score


def _facts(clusters: Clusters, options: ClusterOptions, scan: _Scan) -> list[tuple[str, str]]:
    blank = len(scan.ids) - len(scan.texts)
    left_out = int(np.sum(clusters.labels == NONE))
    facts = [
        ("method", f"{options.method}, seed {options.seed}"),
        ("texts", f"{len(clusters.labels):,}"),
        ("clusters", f"{len(clusters.sizes):,}"),
        ("in no cluster", f"{left_out:,}"),
    ]
    return facts + ([("without any text", f"{blank:,}")] if blank else [])


def _check(source: str | Path, files: ClusterFiles) -> None:
    """All that can be said before the input is read."""
    check_sklearn()
    check_name(files.out)
    if files.plot is not None:
        check_plot(files.plot)
    written = [path for path in files if path is not None]
    for path in written:
        if str(source) != "-" and path.absolute() == Path(source).absolute():
            raise ValueError(f"{path}: is the input too; name another output")
        if sum(path.absolute() == other.absolute() for other in written) > 1:
            raise ValueError(f"{path}: is named for two outputs; name another")
        PendingFile(path).discard()  # a place that cannot be written shows now
