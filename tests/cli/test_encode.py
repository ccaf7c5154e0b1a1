"""`nvembed encode`: formats, options that reach the model, failures that leave nothing."""

from __future__ import annotations

import gzip
import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nvembed_jax import Embedder
from nvembed_jax.data.writers import read_ids

TEXTS = ["the cat sat on the mat", "", "dogs bark", "gradient descent"]


def inputs(folder):
    """The same texts in every input format."""
    folder.mkdir()
    rows = [json.dumps({"_id": f"n{i}", "text": text}) for i, text in enumerate(TEXTS)]
    (folder / "a.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "a.jsonl").write_text("\n".join(rows))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (folder / "a.csv").write_text("text,id\n" + "".join(f"{t},n{i}\n" for i, t in enumerate(TEXTS)))
    table = pa.table({"id": [f"n{i}" for i in range(4)], "text": TEXTS})
    pq.write_table(table, folder / "a.parquet")
    return sorted(folder.iterdir())


def test_every_input_format_gives_the_same_embeddings(nvembed, tmp_path, model):
    expected = model.encode_document(TEXTS)
    for path in inputs(tmp_path / "in"):
        result = nvembed("encode", path, "-o", tmp_path / "out.npy")
        assert (result.code, result.out) == (0, ""), result.err
        assert "wrote 4 embeddings of 64 float32 values" in result.err
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
        ids = ["0", "1", "2", "3"] if path.suffix == ".txt" else ["n0", "n1", "n2", "n3"]
        assert read_ids(tmp_path / "out.ids") == ids
    assert sorted(os.listdir(tmp_path)) == ["in", "out.ids", "out.npy"]


def test_other_outputs_hold_the_same(nvembed, tmp_path, model):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    expected = model.encode_document(TEXTS)
    assert nvembed("encode", tmp_path / "a.txt", "-o", tmp_path / "a.parquet").code == 0
    assert nvembed("encode", tmp_path / "a.txt", "-o", tmp_path / "a.jsonl").code == 0
    table = pq.read_table(tmp_path / "a.parquet")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert table["id"].to_pylist() == [row["id"] for row in rows] == ["0", "1", "2", "3"]
    for embeddings in (table["embedding"].to_pylist(), [row["embedding"] for row in rows]):
        np.testing.assert_allclose(np.array(embeddings), expected, atol=1e-6)


def test_small_blocks_give_the_same(nvembed, tmp_path, model, monkeypatch):
    monkeypatch.setattr("nvembed_jax.cli.progress.encode_block", lambda: 3)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    assert nvembed("encode", tmp_path / "a.txt", "-o", tmp_path / "a.npy").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), model.encode_document(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("args", "encode"),
    [
        (("--input-type", "query"), lambda m, t: m.encode_query(t)),
        (("--task", "Find it"), lambda m, t: m.encode_query(t, task="Find it")),
        (("--prompt", "say: "), lambda m, t: m.encode(t, prompt="say: ")),
        (("--truncate-dim", "16"), lambda m, t: m.encode_document(t, truncate_dim=16)),
        (("--precision", "int8"), lambda m, t: m.encode_document(t, precision="int8")),
        (("--precision", "ubinary"), lambda m, t: m.encode_document(t, precision="ubinary")),
        (("--no-normalize",), lambda m, t: m.encode_document(t, normalize=False)),
        (("--max-length", "4"), lambda m, t: m.encode_document(t, max_length=4)),
        (("--batch-tokens", "64"), lambda m, t: m.encode_document(t)),
    ],
)
def test_options_reach_the_model(nvembed, tmp_path, model, args, encode):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    result = nvembed("encode", tmp_path / "a.txt", "-o", tmp_path / "a.npy", *args)
    assert result.code == 0, result.err
    got, expected = np.load(tmp_path / "a.npy"), encode(model, TEXTS)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_loading_options_reach_the_model(nvembed, tmp_path, model_folder):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    args = ("--pooling", "mean", "--attention", "causal", "--dtype", "bfloat16")
    args += ("--truncation", "published", "-m", model_folder)
    assert nvembed("encode", tmp_path / "a.txt", "-o", tmp_path / "a.npy", *args).code == 0
    other = Embedder.from_pretrained(
        model_folder, pooling="mean", attention="causal", dtype="bfloat16", truncation="published"
    )
    expected = other.encode_document(TEXTS)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-6)


def test_standard_input_and_fields(nvembed, tmp_path, model, monkeypatch):
    stdin = io.BytesIO(b'{"_id": "x", "body": "dogs bark", "title": "T"}\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stdin))
    assert nvembed("encode", "-", "-o", tmp_path / "a.npy", "--field", "body").code == 0
    expected = model.encode_document(["dogs bark"])
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-6)
    assert read_ids(tmp_path / "a.ids") == ["x"]


def test_failures_are_one_line_and_leave_nothing(nvembed, one_error, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    cases = {
        "good.txt": ("one\n", "out.xyz", "expected .npy, .parquet, .jsonl"),
        "good2.txt": ("one\n", "none/out.npy", "there is no folder"),
        "empty.txt": ("", "out.npy", "no texts in it"),
        "bad.jsonl": ('{"text": "a"}\n{"text": 1}', "out.npy", "bad.jsonl:2:"),
        "twice.jsonl": ('{"_id": 1, "text": "a"}\n' * 2, "out.npy", "stands twice"),
        "a.docx": ("x", "out.npy", "cannot tell the format"),
    }
    for name, (content, out, part) in cases.items():
        (source / name).write_text(content)
        message = one_error(nvembed("encode", source / name, "-o", tmp_path / out), 1)
        assert part in message
    assert "no such file" in one_error(
        nvembed("encode", tmp_path / "x.txt", "-o", tmp_path / "o.npy"), 1
    )
    assert os.listdir(tmp_path) == ["in"]


def test_unknown_models_and_impossible_options_leave_nothing(nvembed, one_error, tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    for args, part in (
        (("-m", tmp_path / "nomodel"), "nomodel"),
        (("--truncate-dim", "65"), "64 dimensions"),
        (("--max-length", "99999"), "max_length"),
        (("--prompt-name", "nonsense"), "nonsense"),
    ):
        result = nvembed("encode", tmp_path / "a.txt", "-o", tmp_path / "o.npy", *args)
        assert part in one_error(result, 1)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_input_is_never_overwritten(nvembed, one_error, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n')
    (tmp_path / "link.jsonl").symlink_to(path)
    for out in ("a.jsonl", "link.jsonl"):
        assert "is the input too" in one_error(nvembed("encode", path, "-o", tmp_path / out), 1)
    assert path.read_text() == '{"text": "one"}\n'
