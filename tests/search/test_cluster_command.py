"""`nvembed cluster`: rows, summary and picture; what is refused; runs that go on."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from written_vectors import WrittenVectors, written, written_command

from nvembed_jax.search.cluster_texts import ClusterFiles, cluster_texts
from nvembed_jax.search.clusters import ClusterOptions


@pytest.fixture
def command(capsys, monkeypatch):
    return written_command("cluster", 3, capsys, monkeypatch)


def made_rows(sizes=(12, 20), seed: int = 0) -> tuple[list[dict], list[int]]:
    """Rows around the axes, the first blob first, and the cluster of each: the largest is 0."""
    rng = np.random.default_rng(seed)
    words = ("cat purrs", "bond yields", "rain falls")
    rows, expected = [], []
    for axis, size in enumerate(sizes):
        rank = sorted(sizes, reverse=True).index(size)
        for _ in range(size):
            vector = np.eye(3)[axis] + 0.03 * rng.normal(size=3)
            text = written(vector, f"{words[axis]} {len(rows)}")
            rows.append({"_id": f"r{len(rows)}", "text": text})
            expected.append(rank)
    return rows, expected


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    rows, _ = made_rows()
    rows.insert(3, {"_id": "blank", "text": " "})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("method", [("--k", 2), ("--method", "hdbscan", "--min-size", 5)])
def test_rows_summary_and_picture(command, source, tmp_path, method):
    out, plot = tmp_path / "out.jsonl", tmp_path / "out.png"
    code, printed, err = command(source, "-o", out, *method, "--plot", plot)
    assert code == 0, err
    rows = read(out)
    _, expected = made_rows()
    assert rows.pop(3) == {"id": "blank", "cluster": -1, "score": None}
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(32)]
    assert [row["cluster"] for row in rows] == expected
    assert all(0.99 < row["score"] <= 1 for row in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out.md").read_text()
    assert "- model: default (fingerprint fingerprint of default)" in page
    assert "- without any text: 1" in page
    assert "| 0 | 20 | 62.5% | bond, yields |" in page
    assert "| 1 | 12 | 37.5% | cat, purrs |" in page
    assert printed.splitlines() == [
        "texts          32", "clusters       2", "largest        20", "smallest       12",
        "in no cluster  0 (0.0%)",
    ]  # fmt: skip
    assert err == f"nvembed: wrote {out}, {tmp_path / 'out.md'}, {plot}\n"
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl", "out.md", "out.png"]


def test_columns_standard_input_and_folders_are_read(command, tmp_path, monkeypatch):
    rows, expected = made_rows()
    texts = [row["text"] for row in rows]
    lines = [f"{i},{text}\n" for i, text in enumerate(texts)]
    (tmp_path / "a.csv").write_text("".join(["id,subject\n", *lines]))
    docs = tmp_path / "docs"
    docs.mkdir()
    for i, text in enumerate(texts):
        (docs / f"{i:02}.txt").write_text(text)
    (docs / "image.png").write_bytes(b"\0\1")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    for args in ((tmp_path / "a.csv", "--field", "subject"), ("-",), (docs,)):
        out, summary = tmp_path / "o.jsonl.gz", tmp_path / "s.md"
        code, _, err = command(*args, "-o", out, "-k", 2, "--summary", summary, "--seed", 3)
        assert code == 0, err
        lines = gzip.decompress(out.read_bytes()).splitlines()
        assert [json.loads(line)["cluster"] for line in lines] == expected
        assert "kmeans, seed 3" in summary.read_text()
    assert "image.png (binary)" in err


def test_a_run_that_was_stopped_goes_on(source, tmp_path):
    files = ClusterFiles(tmp_path / "out.jsonl", None, Path(tmp_path, "p.svg"))
    options = ClusterOptions(k=2)
    with pytest.raises(KeyboardInterrupt):
        cluster_texts(
            source, files, WrittenVectors(width=3, fail_after=2), options=options, encode_block=8
        )
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl.cache"]
    model = WrittenVectors(width=3)
    found = cluster_texts(source, files, model, options=options, encode_block=8)
    assert len(model.encoded) == 2
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl", "p.svg"]
    first = [path.read_bytes() for path in (files.out, files.plot)]
    again = cluster_texts(source, files, WrittenVectors(width=3), options=options)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert [path.read_bytes() for path in (files.out, files.plot)] == first


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (("none.jsonl", "-o", "o.jsonl"), 1, "no such file or folder"),
        (("bad.jsonl", "-o", "o.jsonl"), 1, "bad.jsonl:1: not JSON"),
        (("one.txt", "-o", "o.jsonl"), 1, "one.txt: texts in it: 1; expected two or more"),
        (("in.jsonl", "-o", "o.json"), 1, "expected a .jsonl"),
        (("in.jsonl", "-o", "in.jsonl"), 1, "is the input too"),
        (("in.jsonl", "-o", "o.jsonl", "--plot", "p.gif"), 1, "cannot draw to this suffix"),
        (("in.jsonl", "-o", "o.jsonl", "--summary", "o.jsonl"), 1, "named for two outputs"),
        (("in.jsonl", "-o", "no/o.jsonl"), 1, "there is no folder no"),
        (("in.jsonl", "-o", "o.jsonl", "--k", 33), 1, "k is 33, and there are 32 texts"),
        (("in.jsonl", "-o", "o.jsonl", "--method", "hdbscan", "--min-size", 33), 1, "no fewer"),
        (("in.jsonl", "-o", "o.jsonl", "--k", 0), 2, "--k"),
        (("in.jsonl", "-o", "o.jsonl", "--min-size", 5), 2, "min_size is an option of hdbscan"),
        (("in.jsonl", "-o", "o.jsonl", "--method", "dbscan"), 2, "dbscan"),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    command, source, tmp_path, monkeypatch, args, code, part
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "one.txt").write_text("1 0 0 one\n")
    before = sorted(os.listdir())
    found, printed, err = command(*args)
    assert (found, printed, err.count("\n")) == (code, "", 1), err
    assert part in err
    assert command.models == []
    assert sorted(os.listdir()) == before


def test_missing_packages_are_named_before_the_work(command, source, tmp_path, monkeypatch):
    args = (source, "-o", tmp_path / "o.jsonl", "--plot", tmp_path / "p.png")
    for name in ("matplotlib.figure", "sklearn.cluster"):
        monkeypatch.setitem(sys.modules, name, None)
        code, _, err = command(*args)
        assert code == 1
        assert "nvembed_jax[eval]" in err
        assert command.models == []
