"""Training rows that stand in evaluation sets are dropped, and every one of them is reported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nvembed_jax.data.contamination import METHODS, EvaluationIndex, Match
from nvembed_jax.data.evaluation_texts import DEFAULT_SPLITS, evaluation_texts
from nvembed_jax.data.example_rows import DEFAULT_GROUP_KEY, Example, parse_example
from nvembed_jax.data.row_file import check_name, read_rows, row_writer
from nvembed_jax.data.writers import PendingFile
from nvembed_jax.runtime import progress_bar

FIELDS = ("query", "positive", "both")


@dataclass(frozen=True, kw_only=True)
class DecontaminationOptions:
    """What counts as contaminated.

    Attributes:
        fields: "query", "positive" or "both": the texts of a training row that are looked for.
        methods: "exact" (but for case and white space), "minhash" (near-duplicates), "bm25" (one
            text repeats the wording of the other); tried in this order.
        minhash_threshold, bm25_threshold: see `EvaluationIndex`.
        splits: of the evaluation rows that name one. with_corpus: see `evaluation_texts`.

    Raises:
        ValueError: an unknown name, or a threshold out of its range.
    """

    fields: str = "both"
    methods: tuple[str, ...] = METHODS
    minhash_threshold: float = 0.7
    bm25_threshold: float = 0.8
    splits: tuple[str, ...] = DEFAULT_SPLITS
    with_corpus: bool = True
    group_key: str = DEFAULT_GROUP_KEY

    def __post_init__(self) -> None:
        if self.fields not in FIELDS:
            raise ValueError(f"fields must be one of {', '.join(FIELDS)}; got {self.fields!r}")
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown or not self.methods:
            raise ValueError(
                f"methods must be of {', '.join(METHODS)}; got {', '.join(unknown) or 'none'}"
            )
        for name in ("minhash_threshold", "bm25_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is a share, over 0 and up to 1; got {getattr(self, name)}"
                )
        if not self.splits:
            raise ValueError("splits must name at least one; got none")


@dataclass(kw_only=True)
class DecontaminationReport:
    """What was dropped, and why.

    Attributes:
        rows, kept: training rows in and out. texts: texts of each evaluation set.
        by_method: rows dropped by the method that found them first.
        by_set: rows dropped for each evaluation set; a text may stand in several.
        dropped: {line, field, text, method, score, set, place, match} of every dropped row.
        settings: the options.
    """

    rows: int = 0
    kept: int = 0
    texts: dict[str, int] = field(default_factory=dict)
    by_method: Counter[str] = field(default_factory=Counter)
    by_set: Counter[str] = field(default_factory=Counter)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def drop(self, where: str, field: str, text: str, match: Match) -> None:
        """Notes a dropped row."""
        self.by_method[match.method] += 1
        self.by_set.update(match.sets)
        self.dropped.append(
            {
                "line": int(where.rpartition(":")[2]),
                "field": field,
                "text": text,
                "method": match.method,
                "score": match.score,
                "set": match.found.set,
                "place": match.found.place,
                "match": match.found.text,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The content of the report file."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": len(self.dropped),
            "by_method": dict(self.by_method),
            "by_set": dict(self.by_set.most_common()),
            "evaluation_texts": self.texts,
            "settings": self.settings,
            "dropped_rows": self.dropped,
        }


def decontaminate(
    pairs: str | Path,
    against: Sequence[str | Path],
    out: str | Path,
    *,
    options: DecontaminationOptions | None = None,
    on_skip: Callable[[str], None] | None = None,
    show_progress_bar: bool | None = None,
) -> DecontaminationReport:
    """Writes the rows of `pairs` that stand in no evaluation set, and `OUT.report.json`.

    A row is dropped when its query or one of its positives (see `fields`) is found; negatives are
    not looked at. Rows that stay are written as they are.

    Args:
        pairs: .jsonl(.gz) of examples. against: see `evaluation_texts`, which also calls `on_skip`.
        out: .jsonl or .jsonl.gz; it and the report appear when both are complete.

    Raises:
        FileNotFoundError: no such file. ValueError: `FILE:LINE: what is wrong`.
        ImportError: datasketch is not installed and "minhash" is asked for.
    """
    options, out = options or DecontaminationOptions(), check_name(out)
    if out.exists() and Path(pairs).exists() and out.samefile(pairs):
        raise ValueError(f"{out}: is the input too; name another output")
    report_file = PendingFile(Path(f"{out}.report.json"))
    try:
        # All of it once before the long work: a bad line shows at once.
        count = sum(1 for _ in _rows(pairs, options))
        found = evaluation_texts(
            against, splits=options.splits, with_corpus=options.with_corpus, on_skip=on_skip
        )
        index = EvaluationIndex(
            found,
            methods=options.methods,
            minhash_threshold=options.minhash_threshold,
            bm25_threshold=options.bm25_threshold,
        )
        report = DecontaminationReport(texts=dict(index.counts), settings=asdict(options))
        with progress_bar(count, show_progress_bar, "row") as bar:
            _write_kept(pairs, out, index, options, report, bar)
        text = json.dumps(report.to_json(), ensure_ascii=False, indent=2) + "\n"
        report_file.file.write(text.encode())
        report_file.commit()
    finally:
        report_file.discard()
    return report


def _write_kept(
    pairs: str | Path,
    out: Path,
    index: EvaluationIndex,
    options: DecontaminationOptions,
    report: DecontaminationReport,
    bar: Any,
) -> None:
    with row_writer(Path(out)) as write:
        for where, raw, example in _rows(pairs, options):
            report.rows += 1
            bar.update(1)
            found = _find(index, example, options.fields)
            if found is not None:
                report.drop(where, *found)
                continue
            write(raw)
            report.kept += 1


def _rows(pairs: str | Path, options: DecontaminationOptions) -> Any:
    for where, raw in read_rows(pairs):
        yield where, raw, parse_example(raw, where, group_key=options.group_key)


def _find(index: EvaluationIndex, example: Example, fields: str) -> tuple[str, str, Match] | None:
    """(field, text, match) of the first text of a row that stands in an evaluation set."""
    texts = [("query", example.query)] if fields != "positive" else []
    texts += [("positive", text) for text in example.positives] if fields != "query" else []
    for field_, text in texts:
        match = index.find(text)
        if match is not None:
            return field_, text, match
    return None
