"""AIR-Bench's published files -> task folders: its QA sets (main score nDCG@10) and its
long-document sets (Recall@10), whose corpus is the chunks of the documents.

    hf download --repo-type dataset AIR-Bench/long-doc_arxiv_en --local-dir air/long-doc_arxiv_en
    hf download --repo-type dataset AIR-Bench/qrels-long-doc_arxiv_en-dev --local-dir \\
        air/qrels-long-doc_arxiv_en-dev
    python -m nvembed_jax.data.air_bench air sets

Source: the data loader and task lists of github.com/AIR-Bench/AIR-Bench and its dataset
repositories. TASK_DOMAIN_LANGUAGE/VERSION/DATASET/ holds corpus.jsonl {id, text} and
SPLIT_queries.jsonl {id, text}; SPLIT_qrels.jsonl {qid, docid, relevance} stands at the same path in
qrels-TASK_DOMAIN_LANGUAGE-SPLIT. Judgements of split "test" are not public.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nvembed_jax.data.row_file import load_line, row_writer
from nvembed_jax.data.writers import write_text
from nvembed_jax.runtime import progress_bar

MAIN_SCORES = {"qa": "ndcg_at_10", "long-doc": "recall_at_10"}
INSTRUCTION = "Given a question, retrieve passages that answer the question"  # our choice
_REPOSITORY = re.compile(r"(qa|long-doc)_[a-z]+_[a-z]+")


class AirBenchSet(NamedTuple):
    """One set's files. name: TASK_DOMAIN_LANGUAGE_DATASET, in task folders too; kind: of
    `MAIN_SCORES`; qrels: None where there are no judgements of the split.
    """

    name: str
    kind: str
    corpus: Path
    queries: Path
    qrels: Path | None


def convert(
    source: str | Path,
    out: str | Path,
    *,
    qrels: str | Path | None = None,
    split: str = "dev",
    version: str | None = None,
    kind: str | None = None,
    instruction: str = INSTRUCTION,
) -> tuple[list[Path], list[str]]:
    """Writes a task folder below `out` for each set of `source` that has judgements.

    A folder that is there already is left as it is: a conversion that was stopped goes on.

    Args:
        source, qrels, split, version, kind: see `find_sets`.
        instruction: task description of the queries.

    Returns:
        The folders, and the names of sets without judgements.

    Raises:
        FileNotFoundError: no set at all, or none with judgements.
        ValueError: `FILE:LINE: what is wrong`.
    """
    sets = find_sets(source, qrels=qrels, split=split, version=version, kind=kind)
    judged = [found for found in sets if found.qrels is not None]
    without = [found.name for found in sets if found.qrels is None]
    if not judged:
        raise FileNotFoundError(
            f"{source}: no {split}_qrels.jsonl for {', '.join(without)}; get the repository "
            f"AIR-Bench/qrels-... too (judgements of split 'test' are not public)"
        )
    folders = []
    for found in judged:
        folder = Path(out) / found.name
        if not (folder / "task.json").is_file():
            write_task_folder(found, folder, instruction)
        folders.append(folder)
    return folders, without


def find_sets(
    source: str | Path,
    *,
    qrels: str | Path | None = None,
    split: str = "dev",
    version: str | None = None,
    kind: str | None = None,
) -> list[AirBenchSet]:
    """The sets below a folder, by name.

    Args:
        source: a downloaded repository, a folder of some, or one set's own folder.
        qrels: where the qrels repositories are; default: beside the repositories, or in them.
        split: "dev" or "test". version: such as "AIR-Bench_24.05"; None: the newest of each set.
        kind: "qa" or "long-doc"; None: as the name of the repository says.

    Raises:
        FileNotFoundError: there is none. ValueError: no kind given, and none in the name.
    """
    source = Path(source)
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder")
    found: dict[str, AirBenchSet] = {}
    for corpus in sorted(source.rglob("corpus.jsonl")):  # versions rise with their names
        folder = corpus.parent
        queries = _first(folder / f"{split}_queries.jsonl", folder / "queries.jsonl")
        if queries is None or (version is not None and folder.parent.name != version):
            continue
        repository = folder.parent.parent.name
        matched = _REPOSITORY.fullmatch(repository)
        name = f"{repository}_{folder.name}" if matched else folder.name
        if kind is None and matched is None:
            raise ValueError(
                f"{folder}: the folder two above is not named TASK_DOMAIN_LANGUAGE, as the "
                f"repository is; pass the kind, qa or long-doc"
            )
        found[name] = AirBenchSet(
            name=name,
            kind=_known_kind(kind or (matched[1] if matched else "")),
            corpus=corpus,
            queries=queries,
            qrels=_find_qrels(folder, repository, split, qrels),
        )
    if not found:
        wanted = f"corpus.jsonl with {split}_queries.jsonl beside it"
        raise FileNotFoundError(f"{source}: no {wanted}{f' in {version}' if version else ''}")
    return list(found.values())


def write_task_folder(found: AirBenchSet, folder: Path, instruction: str = INSTRUCTION) -> None:
    """Writes one set as a task folder; it is there whole, or not at all.

    Raises:
        FileExistsError: the folder is not empty. ValueError: `FILE:LINE: what is wrong`.
    """
    assert found.qrels is not None
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is not empty and no task folder; name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        out = Path(temporary, folder.name)
        out.mkdir()
        passages = _copy_texts(found.corpus, out / "corpus.jsonl.gz", with_title=True)
        queries = _copy_texts(found.queries, out / "queries.jsonl.gz", with_title=False)
        _copy_qrels(found.qrels, out / "qrels.tsv", queries, passages)
        facts = {
            "name": found.name,
            "type": "retrieval",
            "instruction": instruction,
            "main_score": MAIN_SCORES[found.kind],
        }
        write_text(out / "task.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        os.rename(out, folder)


def _copy_texts(source: Path, target: Path, with_title: bool) -> set[str]:
    """Rows {id, text} as rows {_id, (title,) text}; returns the ids."""
    ids: set[str] = set()
    with row_writer(target) as write:
        for where, row in _rows(source):
            id_, text = _string(row, "id", where), _string(row, "text", where)
            if id_ in ids:
                raise ValueError(f"{where}: the id {id_!r} stands twice; expected one row an id")
            ids.add(id_)
            write({"_id": id_, **({"title": ""} if with_title else {}), "text": text})
    if not ids:
        raise ValueError(f"{source}: no rows in it; expected at least one")
    return ids


def _copy_qrels(source: Path, target: Path, queries: set[str], passages: set[str]) -> None:
    lines, relevant = ["query-id\tcorpus-id\tscore"], 0
    for where, row in _rows(source):
        cells = [_string(row, "qid", where), _string(row, "docid", where)]
        for name, known, place in zip(
            cells, (queries, passages), ("queries", "corpus"), strict=True
        ):
            if name not in known:
                raise ValueError(f"{where}: the id {name!r} does not stand in the {place}")
            if "\t" in name or "\n" in name or "\r" in name:
                raise ValueError(f"{where}: the id {name!r} holds a tab or a line break")
        grade = row.get("relevance")
        if isinstance(grade, bool) or not isinstance(grade, int):
            raise ValueError(f"{where}: 'relevance' holds {grade!r}; expected a whole number")
        relevant += grade > 0  # QA sets also judge their hard negatives, as 0
        lines.append("\t".join([*cells, str(grade)]))
    if not relevant:
        raise ValueError(f"{source}: no passage is relevant; expected at least one")
    write_text(target, "\n".join(lines) + "\n")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE:LINE", row) of a file of JSON objects, with a bar for a large one."""
    with path.open("rb") as file, progress_bar(path.stat().st_size, None, "B") as bar:
        for number, line in enumerate(file, start=1):
            bar.update(len(line))
            if not line.strip():
                continue
            where = f"{path}:{number}"
            row = load_line(line, where)
            if not isinstance(row, dict):
                raise ValueError(f"{where}: a JSON {type(row).__name__}; expected an object")
            yield where, row


def _string(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        there = f"{key!r} holds {type(value).__name__}" if key in row else f"no {key!r}"
        raise ValueError(f"{where}: {there}; expected a string (there are: {', '.join(row)})")
    return value


def _find_qrels(folder: Path, repository: str, split: str, qrels: str | Path | None) -> Path | None:
    file = f"{split}_qrels.jsonl"
    inner = Path(folder.parent.name) / folder.name / file
    root = folder.parent.parent.parent if qrels is None else Path(qrels)
    names = (f"qrels-{repository}-{split}", f"qrels-{repository}", "")
    return _first(folder / file, *(root / name / inner for name in names), root / file)


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _known_kind(kind: str) -> str:
    if kind not in MAIN_SCORES:
        raise ValueError(f"the kind must be one of {', '.join(MAIN_SCORES)}; got {kind!r}")
    return kind


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m nvembed_jax.data.air_bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="a downloaded repository, or a folder of some")
    parser.add_argument("out", help="where the task folders go")
    parser.add_argument("--qrels", help="where the qrels repositories are")
    parser.add_argument("--split", default="dev", choices=("dev", "test"))
    parser.add_argument("--version", help="such as AIR-Bench_24.05; default: the newest")
    parser.add_argument("--kind", choices=tuple(MAIN_SCORES), help="default: by the name")
    parser.add_argument("--instruction", default=INSTRUCTION, help="task description of queries")
    options = vars(parser.parse_args(arguments))
    try:
        folders, without = convert(options.pop("source"), options.pop("out"), **options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if without:
        print(f"no judgements for {', '.join(without)}", file=sys.stderr)
    for folder in folders:
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
