"""What a training example may look like, what bad rows are told, and random access to files."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from nvembed_jax.data.examples import (
    Example,
    ExampleFile,
    example_to_json,
    parse_example,
    read_examples,
    write_examples,
)

FULL = Example(
    query="wie groß ist\u2028Basel?",
    positives=("one", "zwei"),
    negatives=("drei", "four"),
    task="Given a question, answer it",
    source="made",
    group="7",
    positive_score=0.5,
    negative_scores=(0.25, -1.0),
)
RNG = np.random.default_rng(0)


def write(path: Path, *rows) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def rows(count: int, start: int = 0) -> list[dict]:
    return [{"query": f"q{i}", "positive": f"p{i}"} for i in range(start, start + count)]


def failure(row, **kw) -> str:
    with pytest.raises(ValueError, match=r"f:3: ") as caught:
        parse_example(row, "f:3", **kw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_example_survives_json_and_files(tmp_path):
    plain = Example(query="q", positives=("p",))
    assert example_to_json(plain) == {"query": "q", "positive": "p"}
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert write_examples(tmp_path / name, iter([FULL, plain])) == 2
        assert list(read_examples(tmp_path / name)) == [FULL, plain]
    assert "wie groß" in (tmp_path / "a.jsonl").read_text("utf8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.gz"]


def test_writing_leaves_nothing_when_the_examples_fail(tmp_path):
    def failing():
        yield FULL
        raise RuntimeError("stop")

    for name in ("a.jsonl", "a.jsonl.gz"):
        with pytest.raises(RuntimeError, match="stop"):
            write_examples(tmp_path / name, failing())
    assert not list(tmp_path.iterdir())


def test_gzip_output_depends_on_the_examples_only(tmp_path):
    contents = []
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_examples(tmp_path / name, [FULL])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_optional_keys_may_be_null_and_other_keys_are_ignored():
    row = {"query": "q", "positive": ["p"], "negatives": None, "task": None, "group": 3}
    row |= {"pos": "n", "kind": "x", "image": "1.jpg", "label": 1, "_id": "9", "score": 2}
    assert parse_example(row, "f:3") == Example(query="q", positives=("p",), group="3")


def test_group_key_names_the_group():
    row = {"query": "q", "positive": "p", "image": "1.jpg", "group": ["not", "read"]}
    assert parse_example(row, "f:3", group_key="image").group == "1.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": None}, "'query' holds nothing (null); expected a string"),
        ({"query": 3}, "'query' holds int; expected a string"),
        ({"query": " \n"}, "'query' is blank"),
        ({"query": "\ud800"}, "'query' holds a lone surrogate at character 0"),
        ({"positive": ""}, "'positive' is blank"),
        ({"positive": []}, "'positive' is an empty list"),
        ({"positive": ["a", 1]}, "'positive[1]' holds int; expected a string"),
        ({"positive": {"a": 1}}, "'positive' holds dict; expected a string or a list of strings"),
        ({"negatives": "n"}, "'negatives' holds str; expected a list of strings"),
        ({"negatives": ["n", None]}, "'negatives[1]' holds nothing (null)"),
        ({"negatives": ["n", "\t"]}, "'negatives[1]' is blank"),
        ({"negatives": ["n", "p"]}, "negatives[1] is also a positive: 'p'; drop it"),
        ({"task": 1}, "'task' holds int"),
        ({"group": True}, "'group' holds bool"),
        ({"positive_score": float("nan")}, "'positive_score' holds nan; expected a finite number"),
        ({"positive_score": True}, "'positive_score' holds bool; expected a finite number"),
        ({"negatives": ["n"], "negative_scores": [1, 2]}, "2 negative_scores for 1 negatives"),
        ({"negative_scores": [1]}, "1 negative_scores for 0 negatives"),
        (
            {"negatives": ["n"], "negative_scores": [float("inf")]},
            "'negative_scores[0]' holds inf; expected a finite number",
        ),
        ({"negatives": ["n"], "negative_scores": ["1"]}, "'negative_scores[0]' holds str"),
        ({"negatives": ["n"], "negative_scores": 1}, "'negative_scores' holds int"),
        ({"negative": ["n"]}, "unknown key 'negative'; did you mean 'negatives'?"),
        ({"Task": "t"}, "unknown key 'Task'; did you mean 'task'?"),
        ({"positives": ["n"]}, "unknown key 'positives'; did you mean 'positive'?"),
    ],
)
def test_bad_rows_are_told_what_is_wrong(change, message):
    assert message in failure({"query": "q", "positive": "p", **change})


def test_missing_fields_and_other_values_are_told_what_is_expected():
    assert "unknown key 'querry'; did you mean 'query'?" in failure({"querry": "q"})
    assert "no 'positive'; there are: 'query'" in failure({"query": "q"})
    assert "no 'query'; there are: none" in failure({})
    assert "a JSON list; expected an object like" in failure([1])
    assert "did you mean 'image'?" in failure({"imagee": "q"}, group_key="image")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q", ', "not JSON (Expecting property name enclosed in double quotes at char"),
        ("null", "a JSON nothing (null); expected an object"),
        ("[" * 100_000, "JSON nested too deep"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_bad_lines_stop_with_file_and_line_before_anything_is_read(tmp_path, name, line, message):
    path = write(tmp_path / name, *rows(2), "", line, *rows(1))
    for reading in (ExampleFile, lambda path: list(read_examples(path))):
        with pytest.raises(ValueError, match=r"^") as caught:
            reading(path)
        assert str(caught.value).startswith(f"{path}:4: {message}")


def test_broken_utf8_and_broken_gzip_are_told(tmp_path):
    bad = tmp_path / "a.jsonl"
    bad.write_bytes(b'{"query": "\xff"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl:1: not UTF-8: 0xff at byte 12 of the line"):
        ExampleFile(bad)
    cut = write(tmp_path / "b.jsonl.gz", *rows(50))
    cut.write_bytes(cut.read_bytes()[:-20])
    for reading in (ExampleFile, lambda path: list(read_examples(path))):
        with pytest.raises(ValueError, match=r"b.jsonl.gz: not a complete gzip file"):
            reading(cut)


def test_names_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.jsonl: no such file"):
        ExampleFile(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r"expected a .jsonl or .jsonl.gz file"):
        ExampleFile(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="no examples in the file"):
        ExampleFile(write(tmp_path / "a.jsonl", "", " "))
    with pytest.raises(ValueError, match="no files given"):
        ExampleFile([])


def test_several_files_are_one_source(tmp_path):
    first = write(tmp_path / "a.jsonl", *rows(3))
    first.write_bytes(first.read_bytes().rstrip())  # the last line may lack its line feed
    second = write(tmp_path / "b.jsonl.gz", "", *rows(2, start=3), "")
    source = ExampleFile([first, second])
    assert len(source) == 5
    assert [source.get(i, RNG).query for i in (4, 0, 3, 2, 1)] == ["q4", "q0", "q3", "q2", "q1"]
    assert [source.get(i, RNG) for i in range(5)] == [
        *read_examples(first),
        *read_examples(second),
    ]
    with pytest.raises(IndexError, match="no row 5; there are 5"):
        source.get(5, RNG)
    with pytest.raises(IndexError):
        source.get(-1, RNG)


def test_fingerprint_follows_the_content_that_is_used(tmp_path):
    plain = write(tmp_path / "a.jsonl", *rows(3))
    packed = write(tmp_path / "b.jsonl.gz", *rows(3))
    print_of = ExampleFile(plain).fingerprint
    assert print_of == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert ExampleFile(packed).fingerprint == print_of
    assert ExampleFile(write(tmp_path / "c.jsonl", *rows(4)), limit=3).fingerprint == print_of
    assert ExampleFile(plain, limit=2).fingerprint != print_of
    assert ExampleFile(plain, group_key="image").fingerprint != print_of
    assert ExampleFile(plain, task="t").fingerprint != print_of
    assert ExampleFile(plain, name="other").fingerprint == print_of


def test_limit_takes_the_first_rows(tmp_path):
    files = [write(tmp_path / "a.jsonl", *rows(3)), write(tmp_path / "b.jsonl", *rows(3, 3))]
    for limit, last in ((2, "q1"), (3, "q2"), (4, "q3"), (99, "q5")):
        source = ExampleFile(files, limit=limit)
        assert len(source) == min(limit, 6)
        assert source.get(len(source) - 1).query == last
    with pytest.raises(ValueError, match="limit must be at least 1"):
        ExampleFile(files, limit=0)


def test_task_of_the_source_fills_rows_without_one(tmp_path):
    path = write(tmp_path / "a.jsonl", rows(1)[0], {**rows(1)[0], "task": "own"})
    source = ExampleFile(path, task="the set's")
    assert [source.get(i).task for i in range(2)] == ["the set's", "own"]


def test_decompressed_copies_are_kept_by_content(tmp_path):
    path, cache = write(tmp_path / "a.jsonl.gz", *rows(3)), tmp_path / "cache"
    ExampleFile(path, cache_dir=cache)
    (copy,) = cache.iterdir()
    assert copy.read_bytes() == gzip.decompress(path.read_bytes())
    before = copy.stat().st_mtime_ns
    assert ExampleFile(path, cache_dir=cache).get(2).query == "q2"
    assert copy.stat().st_mtime_ns == before
    write(path, *rows(4))
    assert len(ExampleFile(path, cache_dir=cache)) == 4
    assert len(list(cache.iterdir())) == 2


def test_source_can_be_pickled_and_shared_by_threads(tmp_path):
    source = ExampleFile(write(tmp_path / "a.jsonl.gz", *rows(200)))
    source = pickle.loads(pickle.dumps(source)), source
    wrong: list[int] = []

    def read(copy: ExampleFile) -> None:
        wrong.extend(i for i in range(200) if copy.get(i).query != f"q{i}")

    threads = [threading.Thread(target=read, args=(source[i % 2],)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
