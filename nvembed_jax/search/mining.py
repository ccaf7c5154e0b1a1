"""Hard negatives for training pairs: pairs in, pairs with `negatives` out (arXiv 2407.15831).

Every query is scored against every text of the pool, exactly and block by block; a rule of
`mining_rules` leaves out what may be a false negative. Embeddings stand on disk, so that a killed
run goes on.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from nvembed_jax.data.examples import Example
from nvembed_jax.data.identity import text_key
from nvembed_jax.data.row_file import check_name, row_writer
from nvembed_jax.data.writers import PendingFile
from nvembed_jax.runtime import progress_bar
from nvembed_jax.search.mining_embeddings import EmbeddingCache, Scorer, Teacher
from nvembed_jax.search.mining_rules import (
    MiningOptions,
    MiningReport,
    allowed_mask,
    choose,
    keep_mask,
    reduce_positives,
)
from nvembed_jax.search.mining_texts import PairIndex, PairRow, index_pairs, pairs_file, read_pairs

_GROWTH = 4  # of the depth, for queries that have too few negatives
_DIGITS = 6  # of the scores that are written


class Unit(NamedTuple):
    """What gets negatives: a row, or (positives="each") one positive of a row."""

    number: int
    line: int
    row: PairRow
    positives: Int[np.ndarray, " N"]
    which: int | None  # the positive of the row that this is; None: all of them


class Mined(NamedTuple):
    """The negatives of one unit: passages with their scores, the hardest first."""

    positive_score: float
    rows: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]


def mine(
    pairs: str | Path | Iterable[Example],
    out: str | Path,
    teachers: Sequence[Teacher | Callable[[], Teacher]],
    *,
    corpus: str | Path | None = None,
    options: MiningOptions | None = None,
    cache: str | Path | None = None,
    encode_block: int = 2048,
    encoding: dict[str, Any] | None = None,
    show_progress_bar: bool | None = None,
) -> MiningReport:
    """Writes `pairs` to `out` with mined `negatives`, `negative_scores` and `positive_score`.

    All other keys of a row stay as they are. Never a negative: a known positive of the query (also
    one from another row of the same query or group), the query's own text, or a text that differs
    from those only in case and white space.

    Args:
        pairs: a .jsonl(.gz) file of examples, or examples.
        out: .jsonl or .jsonl.gz; appears when it is complete.
        teachers: `Embedder`s, or functions that load one: each is dropped before the next.
        corpus: the pool, a file of {_id, title?, text}; None: the positives of all rows.
        cache: folder that keeps the embeddings for further runs; None: `OUT.cache`, removed at the
            end. A run that was stopped goes on from there.
        encode_block: texts encoded between two savings. encoding: options of the encoding, such as
            max_length.

    Raises:
        ValueError: `FILE:LINE: what is wrong`, no teachers, or options that contradict each other.
        FileNotFoundError: no such file.
    """
    options, out = options or MiningOptions(), Path(out)
    _check(out, teachers, corpus, options)
    store = EmbeddingCache(
        folder=Path(f"{out}.cache") if cache is None else Path(cache),
        block=encode_block,
        encoding=encoding or {},
        show_progress_bar=show_progress_bar,
    )
    with tempfile.TemporaryDirectory(prefix="nvembed-mine-") as folder:
        path = pairs_file(pairs, Path(folder))
        if out.exists() and out.samefile(path):
            raise ValueError(f"{out}: is the input too; name another output")
        index = index_pairs(
            path,
            Path(folder),
            corpus=None if corpus is None else Path(corpus),
            pool_negatives=options.pool_negatives,
            group_key=options.group_key,
            task=options.task,
        )
        scorer = _scorer(teachers, store, index, options)
        report = _write(path, out, index, scorer, options, show_progress_bar)
    if cache is None:
        _remove(store)
    return report


def mine_units(
    units: Sequence[Unit], index: PairIndex, scorer: Scorer, options: MiningOptions
) -> tuple[list[Mined], MiningReport]:
    """The negatives of some units, and what was seen while they were looked for."""
    report = MiningReport()
    known = [index.known_rows(unit.line) for unit in units]
    if options.rule.method == "random":
        drawn = zip(units, known, strict=True)
        return [_random(unit, rows, index, scorer, options) for unit, rows in drawn], report
    by_teacher = [scorer.each(_query(index, unit), unit.positives) for unit in units]
    found: dict[int, Mined] = {}
    pending, depth = list(range(len(units))), min(options.depth, index.num_pool)
    last = min(options.max_depth, index.num_pool)
    while pending:
        rows_of = np.array([_query(index, units[i]) for i in pending])
        scores, rows = scorer.search(rows_of, depth)
        allowed = allowed_mask(rows, [known[i] for i in pending])
        positives = [by_teacher[i] for i in pending]
        keep = _keep(scores, rows, allowed, positives, rows_of, scorer, options)
        if not found:
            report.candidates = int(allowed.sum())
            report.known = int((~allowed).sum())
            report.filtered = int((allowed & ~keep).sum())
        enough = keep.sum(axis=1) >= (options.sample or options.negatives)
        reduced = _reduced(positives, scorer, options)
        for at, i in enumerate(pending):
            rng = np.random.default_rng([options.seed, units[i].number])
            columns = choose(keep[at], options.negatives, options.sample, rng)
            found[i] = Mined(float(reduced[at]), rows[at][columns], scores[at][columns])
        pending = [i for i, full in zip(pending, enough, strict=True) if not full]
        if depth >= last:
            break
        depth = min(depth * _GROWTH, last)
    return [found[i] for i in range(len(units))], report


def _scorer(
    teachers: Sequence[Teacher | Callable[[], Teacher]],
    store: EmbeddingCache,
    index: PairIndex,
    options: MiningOptions,
) -> Scorer:
    queries, passages = [], []
    for teacher in teachers:
        loaded: Any = teacher() if callable(teacher) else teacher
        passages.append(store.passages(loaded, index))
        queries.append(store.queries(loaded, index))
        del loaded  # several large models need not fit at once
    return Scorer(queries, passages, index.num_pool, options.passage_block)


def _query(index: PairIndex, unit: Unit) -> int:
    return int(index.query_rows[unit.line])


def _reduced(
    by_teacher: Sequence[Float[np.ndarray, "T _"]], scorer: Scorer, options: MiningOptions
) -> Float[np.ndarray, " Q"]:
    """The positive score that is compared with the joined scores of the candidates."""
    return reduce_positives([scorer.joined(each) for each in by_teacher], options.rule.positives)


def _keep(
    scores: Float[np.ndarray, "Q K"],
    rows: Int[np.ndarray, "Q K"],
    allowed: Bool[np.ndarray, "Q K"],
    positives: Sequence[Float[np.ndarray, "T _"]],
    query_rows: Int[np.ndarray, " Q"],
    scorer: Scorer,
    options: MiningOptions,
) -> Bool[np.ndarray, "Q K"]:
    rule = options.rule
    if (
        options.combine == "average"
        or len(positives[0]) == 1
        or rule.method in ("naive", "shifted")
    ):
        return keep_mask(rule, scores, allowed, _reduced(positives, scorer, options))
    own = np.stack([scorer.each(int(q), r) for q, r in zip(query_rows, rows, strict=True)], axis=1)
    keep = allowed
    for teacher, candidates in enumerate(own):  # [Q, K]
        limits = reduce_positives([each[teacher] for each in positives], rule.positives)
        keep = keep & keep_mask(rule, candidates, allowed, limits)
    return keep


def _random(
    unit: Unit,
    known: Int[np.ndarray, " n"],
    index: PairIndex,
    scorer: Scorer,
    options: MiningOptions,
) -> Mined:
    """Negatives drawn evenly from the pool, sorted by score like mined ones."""
    rng = np.random.default_rng([options.seed, unit.number])
    size = min(index.num_pool, options.negatives + len(known))
    drawn = rng.choice(index.num_pool, size, replace=False)
    rows = drawn[~np.isin(drawn, known)][: options.negatives]
    scores = scorer.joined(scorer.each(_query(index, unit), rows))
    order = np.argsort(-scores, kind="stable")
    positives = [scorer.each(_query(index, unit), unit.positives)]
    positive = _reduced(positives, scorer, options)[0]
    return Mined(float(positive), rows[order], scores[order])


def _units(rows: Iterable[PairRow], index: PairIndex, options: MiningOptions) -> Iterator[Unit]:
    number = itertools.count()
    for line, row in enumerate(rows):
        positives = index.positives[line]
        if options.rule.positives != "each":
            yield Unit(next(number), line, row, positives, None)
            continue
        for which in range(len(positives)):
            yield Unit(next(number), line, row, positives[which : which + 1], which)


def _write(
    path: Path,
    out: Path,
    index: PairIndex,
    scorer: Scorer,
    options: MiningOptions,
    show_progress_bar: bool | None,
) -> MiningReport:
    total = MiningReport(pool=index.num_pool, wanted=options.negatives, replaced=index.replaced)
    rows = read_pairs(path, group_key=options.group_key)
    with (
        row_writer(out) as write,
        progress_bar(len(index.query_rows), show_progress_bar, "query") as bar,
    ):
        units = _units(rows, index, options)
        while block := list(itertools.islice(units, options.query_block)):
            mined, seen = mine_units(block, index, scorer, options)
            for unit, result in zip(block, mined, strict=True):
                write(_output_row(unit, result, index, options.group_key))
            _add(total, seen, mined)
            bar.update(block[-1].line + 1 - bar.n)
    return total


def _output_row(unit: Unit, mined: Mined, index: PairIndex, group_key: str) -> dict[str, Any]:
    row = dict(unit.row.raw)
    example = unit.row.example
    if unit.which is not None:
        row["positive"] = list(dict.fromkeys(example.positives))[unit.which]
        if len(example.positives) > 1:  # the rows made of one row are positives of each other
            row.setdefault(group_key, text_key(example.query).hex())
    row["negatives"] = index.passages.texts(mined.rows)
    row["positive_score"] = round(mined.positive_score, _DIGITS)
    row["negative_scores"] = [round(float(score), _DIGITS) for score in mined.scores]
    return row


def _add(total: MiningReport, seen: MiningReport, mined: Sequence[Mined]) -> None:
    counts = [len(result.rows) for result in mined]
    total.queries += len(mined)
    total.negatives += sum(counts)
    total.short += sum(count < total.wanted for count in counts)
    total.none += counts.count(0)
    total.candidates += seen.candidates
    total.filtered += seen.filtered
    total.known += seen.known


def _check(
    out: Path, teachers: Sequence[Any], corpus: str | Path | None, options: MiningOptions
) -> None:
    if not teachers:
        raise ValueError("no teachers given; expected at least one model")
    if corpus is not None and options.pool_negatives:
        raise ValueError(
            "pool_negatives adds to the pool of positives; with a corpus leave it away"
        )
    PendingFile(
        check_name(out)
    ).discard()  # a place that cannot be written shows now, not after the encoding


def _remove(store: EmbeddingCache) -> None:
    """Removes the embeddings of this run, and their folder where nothing else is in it."""
    for path in store.written:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        store.folder.rmdir()
