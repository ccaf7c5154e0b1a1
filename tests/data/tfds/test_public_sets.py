"""Every public set is read from its raw format, built as array_record and read back."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from raw_rows import RAW

from nvembed_jax.data.sources import open_source
from nvembed_jax.data.tfds import builder as builder_file
from nvembed_jax.data.tfds.builder import PublicText, build
from nvembed_jax.data.tfds.origin import splits_of_origin
from nvembed_jax.data.tfds.registry import KINDS, PublicSet, all_sets, find_set
from nvembed_jax.text.instructions import SYMMETRIC_TYPES

FIELDS = {
    "pairs": ("query", "positives", "negatives"),
    "classification": ("text", "label"),
    "clustering": ("text", "label"),
    "sts": ("text1", "text2", "score"),
    "pair_classification": ("text1", "text2", "label"),
}
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _quiet():
    tfds.disable_progress_bar()


def write_raw(name: str, folder: Path) -> Path:
    for path, content in RAW[name][0].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        content = content.encode() if isinstance(content, str) else content
        (folder / path).write_bytes(content)
    return folder


def fields(row: dict, kind: str) -> tuple:
    row = {"negatives": [], **row}
    return tuple(list(row[key]) if isinstance(row[key], list | tuple) else row[key]
                 for key in FIELDS[kind])  # fmt: skip


def built(folder: Path, split: str) -> list[dict]:
    source = tfds.builder_from_directory(folder).as_data_source(split=split)
    return [{key: decoded(value) for key, value in source[i].items()} for i in range(len(source))]


def decoded(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float | np.floating):
        return round(float(value), 6)
    return [item.decode() for item in value] if isinstance(value, list | np.ndarray) else value


def test_every_set_has_raw_rows_or_no_parser():
    sets = all_sets()
    assert set(RAW) == {name for name, public in sets.items() if public.parse is not None}
    assert all(len(rows) >= 3 for _, rows in RAW.values())


@pytest.mark.parametrize("name", list(RAW))
def test_raw_format_gives_the_expected_rows(name, tmp_path):
    public = find_set(name)
    found = splits_of_origin(public, [write_raw(name, tmp_path)])
    split = next(iter(found))
    rows = [fields(row, public.kind) for row in public.rows(split, found[split])]
    expected = [tuple(row) for row in RAW[name][1]]
    if name == "tweet_sentiment_extraction":
        rows = [row for row in rows if row[0]]  # the empty text is dropped by the builder
    if name == "bioasq":
        assert len(rows[0][1]) == 1
    assert rows == expected


@pytest.mark.parametrize(
    "name", [name for name in RAW if not re.match(r"(miracl|mr_tydi)_(?!en)", name)]
)
def test_built_set_reads_back(name, tmp_path):
    origin = write_raw(name, tmp_path / "origin")
    folder = build(name, data_dir=tmp_path / "sets", origin_dir=origin)
    public = find_set(name)
    split = next(iter(splits_of_origin(public, [origin])))
    rows = built(folder, split)
    assert [fields(row, public.kind) for row in rows] == [tuple(row) for row in RAW[name][1]]
    if public.kind == "pairs":
        assert {(row["task"], row["source"]) for row in rows} == {(public.instruction, name)}
    else:
        assert {row["split"] for row in rows} == {split}
    assert list(folder.glob("*.array_record-*"))


def test_registry_is_consistent():
    for name, public in all_sets().items():
        assert public.name == name
        assert public.kind in KINDS
        assert public.instruction
        assert public.licence
        assert public.origin.startswith("http"), name
        assert public.urls or public.by_hand, f"{name} can neither be downloaded nor is it by hand"
        assert public.symmetric == (public.kind in SYMMETRIC_TYPES)
        patterns = {pattern for roles in public.files.values() for pattern in roles.values()}
        assert {path for path in public.urls if path} <= patterns
        if public.urls and "" not in public.urls:
            assert patterns == set(public.urls)


def test_tensorflow_is_not_imported(tmp_path):
    write_raw("banking77", tmp_path / "origin")
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from nvembed_jax.data.tfds.__main__ import main\n"
        "from nvembed_jax.data.sources import open_source\n"
        "build = ['build', 'banking77', '--data-dir', sys.argv[1], '--origin-dir', sys.argv[2]]\n"
        "assert main(build) == 0\n"
        "source = open_source('tfds:banking77', data_dir=sys.argv[1], labels='texts')\n"
        "print(source.get(0, np.random.default_rng(0)).query)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "s"), str(tmp_path / "origin")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "where is it?"


def opened(name: str, tmp_path: Path, spec: str = "", **kw):
    build(name, data_dir=tmp_path / "sets", origin_dir=write_raw(name, tmp_path / "origin"))
    return open_source(f"tfds:{spec or name}", data_dir=tmp_path / "sets", **kw)


def test_pairs_come_back_as_examples(tmp_path):
    source = opened("miracl_sw", tmp_path, spec="miracl/sw:train")
    examples = [source.get(i, RNG) for i in range(len(source))]
    assert [(e.query, list(e.positives), list(e.negatives)) for e in examples] == RAW["miracl_sw"][
        1
    ]
    assert {(e.task, e.source, e.group) for e in examples} == {(source.task, "miracl_sw", None)}
    assert source.task == find_set("miracl_sw").instruction
    few = open_source("tfds:miracl_sw", data_dir=tmp_path / "sets", limit=2, task="mine")
    assert (len(few), few.get(0, RNG).task) == (2, "mine")
    assert few.fingerprint != source.fingerprint
    with pytest.raises(IndexError, match="no example 2; there are 2"):
        few.get(2, RNG)


def test_groups_of_pairs_come_back(tmp_path):
    source = opened("squad", tmp_path)
    assert [source.get(i, RNG).group for i in range(3)] == ["T#0", "T#0", "T#1"]


def test_labelled_sets_follow_the_label_rules(tmp_path):
    source = opened("sst2", tmp_path)
    assert source.symmetric
    assert source.task == find_set("sst2").instruction
    example = source.get(0, RNG)
    assert (example.positives, example.negatives) == (("positive",), ("negative",))
    examples = opened("hwu64", tmp_path / "b", labels="texts", negatives=2, limit=2)
    assert [examples.get(i, RNG).query for i in range(len(examples))] == ["wake me", "lights on"]


def test_scored_and_labelled_pairs_come_back_in_both_directions(tmp_path):
    source = opened("stsb", tmp_path)
    assert [source.get(i).query for i in range(len(source))] == ['A "man 4.', "B man 4."]
    source = opened("quora", tmp_path / "b")
    assert [source.get(i).query for i in range(len(source))] == [
        "How a ?",
        "What a ?",
        "d ?",
        "e ?",
    ]


def test_evaluation_splits_are_refused_unless_allowed(tmp_path):
    with pytest.raises(ValueError, match=r"no split 'train'; it has test; it is for evaluation"):
        opened("cisi", tmp_path)
    with pytest.raises(ValueError, match=r"the split 'test' is for evaluation; pass allow_evaluat"):
        open_source("tfds:cisi:test", data_dir=tmp_path / "sets")
    allowed = open_source("tfds:cisi:test", data_dir=tmp_path / "sets", allow_evaluation=True)
    assert len(allowed) == 3
    source = opened("stackoverflow_titles", tmp_path / "b", "stackoverflow_titles:test",
                    allow_evaluation=True, labels="examples")  # fmt: skip
    assert source.get(0, RNG).positives == ("When ?",)


def test_unknown_names_splits_and_unbuilt_sets_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"no public set is called 'bankng77'; did you mean 'bank"):
        open_source("tfds:bankng77", data_dir=tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"build it with `python -m .* build banking77 --da"
    ):
        open_source("tfds:banking77", data_dir=tmp_path)
    with pytest.raises(ValueError, match="has no split 'dev'; it has train, test"):
        opened("banking77", tmp_path, "banking77:dev", allow_evaluation=True)


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("squad", "train-v1.1.json", None),
        ("banking77", "", r"no train.csv and no test.csv below .*; get it from https://raw.*train"),
        ("snli", "", r"no snli_1.0/snli_1.0_train.jsonl and .* get it from https://nlp.stanford"),
        ("hover", "hotpotqa/corpus.jsonl", r"no hotpotqa/corpus.jsonl .* from https://public.ukp"),
        ("emotion", "", r"get it from https://github.com/dair-ai.* \(its published addresses"),
        ("sts12", "train/STS.gs.MSRpar.txt", r"STS.gs.MSRpar.txt: no such file; the scores of STS"),
    ],
)
def test_missing_files_are_named_with_their_origin(name, missing, message, tmp_path):
    folder = write_raw(name, tmp_path / "origin")
    for path in RAW[name][0]:
        if path == missing or not missing:
            (folder / path).unlink()
    if message is None:  # the other splits are there
        assert list(splits_of_origin(find_set(name), [folder])) == ["validation"]
        return
    with pytest.raises(FileNotFoundError, match=message):
        build(name, data_dir=tmp_path / "sets", origin_dir=folder)
    assert not list((tmp_path / "sets").rglob("dataset_info.json"))


def test_sets_that_cannot_be_downloaded_say_where_to_get_them(tmp_path):
    for name, place in (("emotion", "dair-ai"), ("openstax", "openstax/osbooks")):
        with pytest.raises(FileNotFoundError, match=f"{place}.* and pass its folder as origin_dir"):
            build(name, data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        build("squad", data_dir=tmp_path, origin_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("squad", "train-v1.1.json", '{"data": [{"title": "T"}]}', "squad: .* not in the origin's"),
        ("squad", "train-v1.1.json", "{", "train-v1.1.json: not JSON"),
        ("disfl_qa", "train.json", "[1]", "train.json, item 0: a JSON int; expected an obj"),
        ("banking77", "train.csv", "a,b\n1,2\n", "train.csv:2: no column 'category'; there are: '"),
        ("quora", "data/quora/train.txt", "a\tb\t2\n", "train.txt:1: the label is '2'; expected 0"),
        ("scifact", "scifact/corpus.jsonl", "{}\n", "corpus.jsonl:1: no column 'text'"),
        ("scifact", "scifact/corpus.jsonl", "[]\n", "corpus.jsonl:1: a JSON list; expected an obj"),
        ("msmarco", "qrels.train.tsv", "1 2\n", "qrels.train.tsv:1: expected 4 columns; got '1 2'"),
        ("msmarco", "collection.tsv", "1 a\n", "collection.tsv:1: expected an id, a tab and a te"),
        ("nl2bash", "data/bash/all.cm", "ls\n", "all.cm: ends before line 2; expected a line for"),
        ("trec_qc", "train_5500.label", "How ?\n", "label:1: expected TYPE:subtype first; got"),
        ("medquad", "1_GARD_QA/0000001.xml", "<a>", "0000001.xml: not XML"),
        ("stackexchange", "ask.org/Posts.xml", "<a>", "Posts.xml: not XML"),
        (
            "ag_news",
            "data/ag_news_csv/train.csv",
            '"9","a","b"\n',
            "csv:1: no column '9'; there ar",
        ),
        ("sts12", "train/STS.input.MSRpar.txt", "a\nb\n", "MSRpar.txt:1: expected two sentences"),
        ("wikiqa", "data/wikiqa/train.txt", "q\ts\t7\n", "train.txt:1: the label is '7'; expected"),
        ("emotion", "train.txt", b"\xff;joy\n", "train.txt: not utf-8"),
        ("emotion", "train.txt", "", "emotion: no rows in the split 'train' of its files"),
    ],
)
def test_files_in_another_format_are_told(name, file, content, message, tmp_path):
    folder = write_raw(name, tmp_path / "origin")
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        build(name, data_dir=tmp_path / "sets", origin_dir=folder)
    assert not list((tmp_path / "sets").rglob("dataset_info.json"))


def layout(folder: Path, kind: str | None, **files: list[dict]) -> Path:
    folder.mkdir(parents=True)
    if kind is not None:
        (folder / "task.json").write_text(json.dumps({"name": "x", "type": kind}))
    for stem, rows in files.items():
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_pairs_in_the_task_layout_are_built_for_sets_without_a_parser(tmp_path):
    rows = [{"query": f"q{i}", "positive": f"p{i}", "negatives": ["n", f"p{i}"], "image": i}
            for i in range(3)]  # fmt: skip
    rows.append({"query": "same", "positive": ["same"]})
    layout(tmp_path / "all" / "openstax", None, pairs_train=rows[:2], pairs_train_b=rows[2:])
    build("openstax", data_dir=tmp_path / "sets", origin_dir=tmp_path / "all")
    source = open_source("tfds:openstax", data_dir=tmp_path / "sets")
    made = [source.get(i, RNG) for i in range(len(source))]
    assert [(e.query, e.positives, e.negatives, e.group) for e in made] == [
        (f"q{i}", (f"p{i}",), ("n",), str(i)) for i in range(3)
    ]


def test_labelled_rows_in_the_task_layout_keep_their_splits(tmp_path):
    rows = [{"text": f"{split}{i}", "label": i, "split": split}
            for split in ("test", "train", "val") for i in range(3)]  # fmt: skip
    folder = layout(tmp_path / "f", "classification", classification=rows)
    made = build("banking77", data_dir=tmp_path / "sets", origin_dir=folder)
    for split, word in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert [(row["text"], row["label"], row["split"]) for row in built(made, split)] == [
            (f"{word}{i}", str(i), split) for i in range(3)
        ]


def test_other_kinds_of_the_task_layout_are_built(tmp_path):
    scored = [{"text1": "a", "text2": f"b{i}", "score": i / 10} for i in range(3)]
    folder = layout(tmp_path / "sts", "sts", sts=scored)
    made = build("sts12_15", data_dir=tmp_path / "sets", origin_dir=folder)
    assert [row["score"] for row in built(made, "test")] == [0.0, 0.1, 0.2]
    ranked = [{"query": f"q{i}", "positive": ["p"], "negative": ["n"], "split": "train"}
              for i in range(3)]  # fmt: skip
    folder = layout(tmp_path / "ranked", "reranking", reranking=ranked)
    made = build("wikiqa", data_dir=tmp_path / "sets", origin_dir=folder)
    assert [fields(row, "pairs") for row in built(made, "train")] == [
        (f"q{i}", ["p"], ["n"]) for i in range(3)
    ]
    folder = layout(
        tmp_path / "judged",
        "retrieval",
        corpus=[{"_id": "d", "title": "T", "text": "x"}],
        queries=[{"_id": str(i), "text": f"q{i}"} for i in range(3)],
    )
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{i}\td\t1\n" for i in range(3))
    )
    made = build("cacm", data_dir=tmp_path / "sets", origin_dir=folder)
    assert [fields(row, "pairs") for row in built(made, "test")] == [
        (f"q{i}", ["T x"], []) for i in range(3)
    ]
    with pytest.raises(ValueError, match=r"rows are of the kind retrieval; sst2 expects classific"):
        build("sst2", data_dir=tmp_path / "sets", origin_dir=folder)


@pytest.fixture
def server(tmp_path):
    """An HTTP server on this machine for the folder it yields; (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=str(folder))
    ) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def with_urls(monkeypatch, name: str, urls: dict[str, str]) -> PublicSet:
    changed = replace(find_set(name), urls=urls)
    monkeypatch.setattr(builder_file, "find_set", lambda _: changed)
    return changed


def test_files_and_archives_are_downloaded(tmp_path, monkeypatch, server):
    folder, address = server
    write_raw("banking77", folder)
    with_urls(monkeypatch, "banking77", {f: f"{address}/{f}" for f in ("train.csv", "test.csv")})
    made = build("banking77", data_dir=tmp_path / "sets")
    assert [fields(row, "classification") for row in built(made, "train")] == RAW["banking77"][1]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in RAW["scifact"][0].items():
            archive.writestr(path, content)
    (folder / "scifact.zip").write_bytes(packed.getvalue())
    with_urls(monkeypatch, "scifact", {"": f"{address}/scifact.zip"})
    made = build("scifact", data_dir=tmp_path / "sets")
    assert [fields(row, "pairs") for row in built(made, "train")] == RAW["scifact"][1]
    with tarfile.open(folder / "stsb.tar.gz", "w:gz") as archive:
        archive.add(write_raw("stsb", tmp_path / "stsb") / "stsbenchmark", "stsbenchmark")
    with_urls(monkeypatch, "stsb", {"": f"{address}/stsb.tar.gz"})
    made = build("stsb", data_dir=tmp_path / "sets")
    assert [fields(row, "sts") for row in built(made, "train")] == RAW["stsb"][1]
    (folder / "hover.zip").write_bytes(b"no archive")
    with_urls(monkeypatch, "squad", {"": f"{address}/hover.zip"})
    with pytest.raises(ValueError, match=r"expected a .zip or .tar archive"):
        build("squad", data_dir=tmp_path / "sets")


def test_failed_download_names_the_address_and_the_way_out(tmp_path, monkeypatch, server):
    _, address = server
    with_urls(monkeypatch, "squad", {"train-v1.1.json": f"{address}/gone.json"})
    with pytest.raises(OSError, match=rf"{address}/gone.json cannot be downloaded .* origin_dir"):
        build("squad", data_dir=tmp_path)


def test_builder_takes_the_layout_of_tfds(tmp_path):
    write_raw("hwu64", tmp_path / "origin")
    builder = PublicText(
        config="hwu64", data_dir=str(tmp_path / "sets"), origin_dir=tmp_path / "origin"
    )
    builder.download_and_prepare()
    assert builder.info.splits["validation"].num_examples == 3
    assert builder.info.as_proto.redistribution_info.license == find_set("hwu64").licence
    assert not builder.skipped
