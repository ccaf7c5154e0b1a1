"""Task folders: every type is read, and every broken row is told with its place."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest
from made_tasks import INSTRUCTION, MADE, labelled, pair_rows, retrieval_files, write_task

from nvembed_jax.eval.tasks import TYPES, find_tasks, load_task


def test_every_type_is_read(make_task):
    assert set(MADE) == set(TYPES)
    sizes = {
        "retrieval": 5, "classification": 60, "clustering": 60, "pair_classification": 60,
        "sts": 60, "reranking": 20, "summarization": 5,
    }  # fmt: skip
    for type, size in sizes.items():
        task = load_task(make_task(type))
        assert (task.name, task.type, task.instruction) == (type, type, INSTRUCTION)
        assert (task.main_score, task.size) == (MADE[type][0], size)
        assert task.split == ("test" if type in ("classification", "reranking") else "all")
        assert len(task.fingerprint) == 64


def test_the_data_are_those_of_the_files(make_task):
    retrieval = load_task(make_task("retrieval")).data
    assert retrieval.corpus_ids[:2] == ("d0", "d1")
    assert retrieval.qrels["q1"] == {f"d{i}": 1 for i in range(6, 12)}
    assert "q4" not in retrieval.qrels
    pairs = load_task(make_task("pair_classification")).data
    assert (pairs.first[1], pairs.second[1]) == ("cats 0 left 0", "wine 0 right 0")
    assert pairs.gold.tolist()[:4] == [1, 0, 0, 0]
    rows = [{"text": "t", "label": i % 2, "split": s} for i in range(4) for s in ("train", "test")]
    numbers = load_task(make_task("classification", classification=rows)).data
    assert numbers.labels == ("0", "1", "0", "1")


def test_test_rows_come_first_then_validation_then_all(make_task):
    def with_split(*names):
        return [{**row, "split": name} for name in names for row in pair_rows()[:5]]

    for names, split, size in (
        (("train", "validation", "test"), "test", 5),
        (("train", "validation"), "validation", 5),
        (("train",), "all", 5),
    ):
        folder = make_task("pair_classification", pairs=with_split(*names))
        task = load_task(folder)
        assert (task.split, task.size) == (split, size)
        shutil.rmtree(folder)


def test_a_row_without_a_split_among_others_is_a_test_row(make_task):
    rows = [{**row, "split": "train"} for row in pair_rows()] + pair_rows()[:4]
    assert load_task(make_task("pair_classification", pairs=rows)).size == 4


def test_plain_jsonl_is_read_too(make_task):
    folder = make_task("sts")
    packed = folder / "sts.jsonl.gz"
    before = load_task(folder)
    (folder / "sts.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    after = load_task(folder)
    assert after.data.first == before.data.first
    assert after.fingerprint != before.fingerprint


def test_the_fingerprint_changes_with_any_file(make_task):
    folder = make_task("retrieval")
    prints = {load_task(folder).fingerprint}
    (folder / "qrels.tsv").write_text((folder / "qrels.tsv").read_text() + "q0\td29\t1\n")
    prints.add(load_task(folder).fingerprint)
    facts = json.loads((folder / "task.json").read_text())
    (folder / "task.json").write_text(json.dumps({**facts, "instruction": "other"}))
    prints.add(load_task(folder).fingerprint)
    (folder / "SOURCE.md").write_text("not part of the task")
    prints.add(load_task(folder).fingerprint)
    assert len(prints) == 3


def test_tasks_are_found_one_level_below(all_tasks, tmp_path):
    parent = all_tasks[0].parent
    (parent / "training_only").mkdir()
    assert find_tasks([parent]) == sorted(all_tasks)
    assert find_tasks([all_tasks[1], parent])[0] == all_tasks[1]
    assert len(find_tasks([all_tasks[1], parent])) == len(all_tasks)
    for folder, part in ((parent / "training_only", "task.json"), (tmp_path / "no", "no such")):
        with pytest.raises(FileNotFoundError, match=part):
            find_tasks([folder])
        with pytest.raises(FileNotFoundError, match=part):
            load_task(folder)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "task.json:1: not JSON"),
        ("[]", "a JSON list"),
        ('{"name": "n", "type": "sts"}', "'instruction' holds nothing"),
        ('{"name": 3}', "'name' holds int"),
        ('{"name": " ", "type": "sts", "instruction": "i"}', "'name' is blank"),
        ('{"name": "n", "type": "stss", "instruction": "i"}', "did you mean 'sts'"),
        (
            '{"name": "n", "type": "sts", "instruction": "i", "main_score": "cosine_spearmann"}',
            "did you mean 'cosine_spearman'",
        ),
        (
            '{"name": "n", "type": "clustering", "instruction": "i", "main_score": "accuracy"}',
            "expected one of v_measure",
        ),
    ],
)
def test_a_broken_task_file_is_named(make_task, content, part):
    folder = make_task("sts")
    (folder / "task.json").write_text(content)
    with pytest.raises(ValueError, match=part):
        load_task(folder)


PAIR = {"text1": "a", "text2": "b", "label": 1}
RERANK = {"query": "q", "positive": ["p"], "negative": ["n"]}
SUMMARY = {"human_summaries": ["h"], "machine_summaries": ["m", "n"], "relevance": [1, 2]}


@pytest.mark.parametrize(
    ("type", "row", "part"),
    [
        ("pair_classification", [], "a JSON list; expected an object"),
        ("pair_classification", {"text1": "a", "label": 1}, "no field 'text2'; there are: 'text1'"),
        ("pair_classification", {**PAIR, "text2": None}, "'text2' holds nothing"),
        ("pair_classification", {**PAIR, "text1": "\ud800"}, "lone surrogate"),
        ("pair_classification", {**PAIR, "label": 2}, "the label is 2; expected 0 or 1"),
        ("pair_classification", {**PAIR, "label": "1"}, "the label is '1'"),
        ("pair_classification", {**PAIR, "split": "dev"}, "unknown split 'dev'"),
        ("sts", {**PAIR, "score": "5"}, "'score' holds '5'; expected a finite number"),
        ("sts", {**PAIR, "score": float("nan")}, "'score' holds nan"),
        ("clustering", {"text": "t", "label": 1.5}, "the label holds float"),
        ("clustering", {"text": 3, "label": "x"}, "'text' holds int"),
        ("classification", {"text": "t", "split": "test"}, "no field 'label'"),
        ("reranking", {**RERANK, "positive": "p"}, "'positive' holds str; expected a list"),
        ("reranking", {**RERANK, "negative": ["n", 3]}, r"'negative\[1\]' holds int"),
        ("summarization", {**SUMMARY, "relevance": [1]}, "2 machine_summaries, 1 relevance"),
        ("summarization", {**SUMMARY, "relevance": [1, True]}, r"'relevance\[1\]' holds True"),
        ("summarization", {**SUMMARY, "human_summaries": []}, "0 human_summaries"),
    ],
)
def test_a_broken_row_is_told_with_its_place(make_task, type, row, part):
    stem = "pairs" if type == "pair_classification" else type
    rows = MADE[type][1]()[stem][:3]
    folder = make_task(type, **{stem: [*rows, row]})
    with pytest.raises(ValueError, match=f"{stem}.jsonl.gz:4: .*{part}"):
        load_task(folder)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (gzip.compress(b'{"text1"}\n'), "sts.jsonl.gz:1: not JSON"),
        (gzip.compress(b"\n\n"), "no rows in it"),
        (gzip.compress(b'{"a": "\xff"}'), "sts.jsonl.gz:1: not JSON"),
        (gzip.compress(b'{"text1": "a"}\n' * 50)[:-9], "not a complete gzip file"),
        (b"plain", "not a complete gzip file"),
    ],
)
def test_a_broken_file_is_told(make_task, content, part):
    folder = make_task("sts")
    (folder / "sts.jsonl.gz").write_bytes(content)
    with pytest.raises(ValueError, match=part):
        load_task(folder)


HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    ("qrels", "part"),
    [
        ("q0\td0\t1\n", "qrels.tsv:1: no header"),
        (HEADER + "q0\td0\n", "qrels.tsv:2: 2 cells"),
        (HEADER + "q0\td0\t1\nq0\td1\tgood\n", "qrels.tsv:3: the score 'good'"),
        (HEADER + "q9\td0\t1\n", "qrels.tsv:2: the id 'q9' does not stand in the queries"),
        (HEADER + "q0\td99\t1\n", "qrels.tsv:2: the id 'd99' does not stand in the corpus"),
        (HEADER, "qrels.tsv: no judgements"),
    ],
)
def test_broken_judgements_are_told(make_task, qrels, part):
    folder = make_task("retrieval", qrels=qrels)
    with pytest.raises(ValueError, match=part):
        load_task(folder)


def test_a_passage_that_stands_twice_is_told(make_task):
    corpus = retrieval_files()["corpus"]
    folder = make_task("retrieval", corpus=[*corpus, corpus[0]])
    with pytest.raises(ValueError, match=r"corpus\.jsonl\.gz:31: the id 'd0' stands twice"):
        load_task(folder)


def test_missing_files_are_told(make_task):
    for type, name in (
        ("retrieval", "qrels.tsv"),
        ("retrieval", "corpus.jsonl.gz"),
        ("sts", "sts.jsonl.gz"),
    ):
        folder = make_task(type)
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
            load_task(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("type", "files", "part"),
    [
        ("sts", {"sts": [{**PAIR, "score": 3.0}] * 4}, "has the same score, 3"),
        ("pair_classification", {"pairs": [PAIR] * 4}, "has the same label, 1"),
        ("clustering", {"clustering": labelled(3, None)[::5]}, "one label only, 'cats'"),
        ("classification", {"classification": labelled(3, "train")}, "got 15 and 0"),
        ("classification", {"classification": labelled(3, "test")}, "got 0 and 15"),
        ("reranking", {"reranking": [{**RERANK, "positive": []}]}, "nothing to rank"),
    ],
)
def test_what_cannot_be_measured_is_told(tmp_path, type, files, part):
    folder = write_task(tmp_path / "t", type, MADE[type][0], **files)
    with pytest.raises(ValueError, match=part):
        load_task(folder)
