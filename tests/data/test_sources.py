"""What `open_source` makes of files, lists, patterns and folders, and what it refuses."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from nvembed_jax.data.examples import ExampleFile
from nvembed_jax.data.sources import open_source


def write(path: Path, rows: list) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def pairs(*names: str) -> list[dict]:
    return [{"query": f"q{name}", "positive": f"p{name}"} for name in names]


def queries(source) -> list[str]:
    return [source.get(i, np.random.default_rng(0)).query for i in range(len(source))]


def task_folder(path: Path, kind: str, files: dict[str, list], **content) -> Path:
    path.mkdir()
    (path / "task.json").write_text(
        json.dumps({"name": f"{path.name}_task", "type": kind, "instruction": "Do it", **content})
    )
    for name, rows in files.items():
        write(path / name, rows)
    return path


def labelled(*splits: str) -> list[dict]:
    return [
        {"text": f"{split}{label}{i}", "label": label, "split": split}
        for split in splits
        for label in "abc"
        for i in range(2)
    ]


def test_files_lists_and_patterns_are_one_source(tmp_path):
    write(tmp_path / "b.jsonl", pairs("3"))
    write(tmp_path / "a.jsonl.gz", pairs("1", "2"))
    a, b = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"
    assert queries(open_source(a)) == ["q1", "q2"]
    assert queries(open_source(f"{b}, {a}")) == ["q3", "q1", "q2"]
    assert queries(open_source(f"{tmp_path}/*.jsonl*")) == ["q1", "q2", "q3"]
    assert queries(open_source(f"{tmp_path}/*.jsonl*", limit=2)) == ["q1", "q2"]
    odd = write(tmp_path / "x,y[1].jsonl", pairs("4"))
    assert queries(open_source(str(odd))) == ["q4"]
    assert queries(open_source(f"{b},{tmp_path / 'b.jsonl'}")) == ["q3", "q3"]


def test_group_key_and_task_reach_the_examples(tmp_path):
    path = write(tmp_path / "a.jsonl", [{**pairs("1")[0], "image": "x"}])
    source = open_source(path, group_key="image", task="Find it")
    example = source.get(0, np.random.default_rng(0))
    assert (example.group, example.task, source.task) == ("x", "Find it", "Find it")


@pytest.mark.parametrize("spec", ["none.jsonl", "none*.jsonl", "a.jsonl,none.jsonl", "a.jsonl,"])
def test_what_is_not_there_is_told(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", pairs("1"))
    with pytest.raises(FileNotFoundError, match="no such file, folder or pattern"):
        open_source(spec)


def test_folder_of_pairs_takes_all_its_files(tmp_path):
    write(tmp_path / "pairs_train_more.jsonl", pairs("2"))
    write(tmp_path / "pairs_train.jsonl.gz", pairs("1"))
    write(tmp_path / "other.jsonl", pairs("3"))
    source = open_source(tmp_path)
    assert isinstance(source, ExampleFile)
    assert queries(source) == ["q1", "q2"]
    assert (source.name, source.task, source.symmetric) == (tmp_path.name, None, False)


@pytest.mark.parametrize(
    ("kind", "task", "symmetric"),
    [
        ("retrieval", "Do it", False),
        ("pair_classification", "Do it", True),
        ("classification", None, False),  # its instruction does not describe the pairs
    ],
)
def test_pairs_beside_a_task_take_its_instruction_where_it_fits(tmp_path, kind, task, symmetric):
    folder = task_folder(tmp_path / "f", kind, {"pairs_train.jsonl": pairs("1")})
    source = open_source(folder)
    assert (source.task, source.symmetric) == (task, symmetric)
    assert source.get(0, np.random.default_rng(0)).task == task
    assert open_source(folder, task="mine").task == "mine"


def test_training_rows_of_a_classification_folder_become_examples(tmp_path):
    files = {"classification.jsonl.gz": labelled("test", "train")}
    source = open_source(task_folder(tmp_path / "f", "classification", files), negatives=2)
    assert (source.name, source.task, source.symmetric) == ("f_task", "Do it", True)
    assert queries(source) == [f"train{label}{i}" for label in "abc" for i in range(2)]
    assert len(source.get(0, np.random.default_rng(0)).negatives) == 2
    few = open_source(tmp_path / "f", limit=3, labels="examples")
    assert queries(few) == ["traina0", "traina1"]
    assert few.get(0, np.random.default_rng(0)).negatives == ("trainb0",)


def test_label_texts_stand_in_task_json_or_are_passed(tmp_path):
    rows = [{"text": f"x{i}", "label": i % 2, "split": "train"} for i in range(4)]
    names = {"0": "bad", "1": "good"}
    files = {"classification.jsonl": rows}
    told = task_folder(tmp_path / "told", "classification", files, label_texts=names)
    bare = task_folder(tmp_path / "bare", "classification", files)
    for source in (open_source(told), open_source(bare, label_texts=names)):
        example = source.get(1, np.random.default_rng(0))
        assert (example.positives, example.negatives) == (("good",), ("bad",))
    with pytest.raises(ValueError, match="says nothing as a text"):
        open_source(bare)


def test_labels_of_a_known_public_set_have_their_meaning(tmp_path):
    rows = [{"text": f"x{i}", "label": str(i % 2), "split": "train"} for i in range(4)]
    folder = task_folder(
        tmp_path / "f", "classification", {"classification.jsonl": rows}, name="sst2"
    )
    example = open_source(folder).get(1, np.random.default_rng(0))
    assert (example.positives, example.negatives) == (("positive",), ("negative",))


def test_sources_can_be_pickled(tmp_path):
    files = {"classification.jsonl.gz": labelled("train")}
    scored = [{"text1": "a", "text2": "b", "score": 5, "split": "train"}]
    for source in (
        open_source(task_folder(tmp_path / "a", "classification", files)),
        open_source(task_folder(tmp_path / "b", "sts", {"sts.jsonl": scored})),
        open_source(retrieval_folder(tmp_path / "c"), allow_evaluation=True),
    ):
        copy = pickle.loads(pickle.dumps(source))
        assert queries(copy) == queries(source)
        rng, again = np.random.default_rng(5), np.random.default_rng(5)
        assert copy.get(1, rng) == source.get(1, again)


def test_task_file_beside_its_task_json_stands_for_the_rows_of_the_task(tmp_path):
    rows = [{"text1": "a", "text2": "b", "label": 1, "split": "train"}]
    files = {"pairs.jsonl": rows, "pairs_train.jsonl": pairs("1")}
    folder = task_folder(tmp_path / "f", "pair_classification", files)
    assert queries(open_source(folder / "pairs.jsonl")) == ["a", "b"]
    assert queries(open_source(folder)) == ["q1"]
    plain = write(tmp_path / "pairs.jsonl", pairs("2"))  # no task.json beside it
    assert queries(open_source(plain)) == ["q2"]


def test_scale_of_scores_comes_from_task_json(tmp_path):
    rows = [
        {"text1": f"a{i}", "text2": f"b{i}", "score": score, "split": "train"}
        for i, score in enumerate((0.79, 0.8, 1.0))
    ]
    folder = task_folder(tmp_path / "f", "sts", {"sts.jsonl": rows}, min_score=0, max_score=1)
    assert queries(open_source(folder)) == ["a1", "b1", "a2", "b2"]


def retrieval_folder(path: Path) -> Path:
    corpus = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "text": "two"}]
    corpus += [{"_id": "d3", "title": "", "text": "three"}, {"_id": "d4", "text": ""}]
    files = {
        "corpus.jsonl.gz": corpus,
        "queries.jsonl": [{"_id": f"q{i}", "text": f"query {i}"} for i in (1, 2, 3)],
    }
    folder = task_folder(path, "retrieval", files)
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td3\t2\nq1\td2\t0\n"
        "q2\td2\t-1\nq3\td3\t1\nq3\td4\t1\nq3\tgone\t1\n"
    )
    return folder


def test_judged_queries_become_examples_where_evaluation_sets_are_allowed(tmp_path):
    folder = retrieval_folder(tmp_path / "f")
    with pytest.raises(ValueError, match="f: a retrieval set without splits is an evaluation set"):
        open_source(folder)
    source = open_source(folder, allow_evaluation=True)
    made = [source.get(i, np.random.default_rng(0)) for i in range(len(source))]
    assert [(e.query, e.positives, e.negatives, e.task) for e in made] == [
        ("query 1", ("T one", "three"), ("two",), "Do it"),
        ("query 3", ("three",), (), "Do it"),
    ]
    assert source.skipped == {"unknown passage": 2, "no positive": 1}
    assert len(open_source(folder, allow_evaluation=True, limit=1)) == 1
    with pytest.raises(IndexError, match="no example 2; there are 2"):
        source.get(2, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q1\td1\t1\n", r"qrels.tsv:1: expected the header query-id corpus-id score"),
        ("query-id\tcorpus-id\tscore\nq1 d1 1\n", r"qrels.tsv:2: expected query-id, corpus-id"),
        ("query-id\tcorpus-id\tscore\nq1\td1\tyes\n", r"qrels.tsv:2: .* got 'q1.td1.tyes'"),
        ("query-id\tcorpus-id\tscore\nq9\td1\t1\n", r"no query of .* has a positive"),
    ],
)
def test_bad_judgements_are_told(tmp_path, content, message):
    folder = retrieval_folder(tmp_path / "f")
    (folder / "qrels.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_source(folder, allow_evaluation=True)


@pytest.mark.parametrize(
    ("kind", "name", "row"),
    [
        ("clustering", "clustering.jsonl", {"text": "a", "label": "x"}),
        ("sts", "sts.jsonl", {"text1": "a", "text2": "b", "score": 5}),
    ],
)
def test_sets_without_splits_are_refused_unless_allowed(tmp_path, kind, name, row):
    other = {key: f"{value}2" if isinstance(value, str) else value for key, value in row.items()}
    again = {**row, "text": "c"}
    folder = task_folder(tmp_path / "f", kind, {name: [row, other, again]})
    with pytest.raises(ValueError, match=f"{name}:1: the row has no 'split': an evaluation set"):
        open_source(folder)
    assert len(open_source(folder, allow_evaluation=True, labels="examples")) >= 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"type": "classify"}', "task.json: type is 'classify'; expected one of classification"),
        ('{"type": "sts", "name": 1}', "task.json: 'name' holds int; expected a string"),
        ('{"type": "sts", "max_score": "5"}', "task.json: 'max_score' holds str; expected a fin"),
        ('{"type": "sts", "min_score": 5}', "min_score 5.0 must be below max_score 5.0"),
        ('{"type": "sts", "label_texts": []}', "task.json: 'label_texts' must map labels to"),
        ("{", "task.json: not JSON"),
        ("[]", "task.json: a JSON list; expected an object"),
        ('{"type": "summarization"}', "summarization sets hold no training examples"),
    ],
)
def test_bad_task_json_is_told(tmp_path, content, message):
    (tmp_path / "task.json").write_text(content)
    write(tmp_path / "sts.jsonl", [{"text1": "a", "text2": "b", "score": 1, "split": "train"}])
    write(tmp_path / "summarization.jsonl", [])
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)


def test_folders_that_hold_nothing_known_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"neither task.json nor pairs_train\*.jsonl"):
        open_source(tmp_path)
    (tmp_path / "task.json").write_text('{"type": "sts"}')
    with pytest.raises(FileNotFoundError, match=r"neither sts.jsonl nor sts.jsonl.gz is in"):
        open_source(tmp_path)
