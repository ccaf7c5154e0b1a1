"""`nvembed corpus`: what reaches the model, wrong usage, and a process killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_corpus import files, rows, texts, write_corpus

from nvembed_jax.cli.main import run

COUNT = 150


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl", COUNT)


@pytest.fixture
def corpus_command(capsys, monkeypatch, tiny_folder, tiny_model):
    """Runs `nvembed corpus ARGS` with the tiny model; (exit code, standard error)."""
    monkeypatch.setattr("nvembed_jax.cli.options.load_model", lambda model, **options: tiny_model)
    monkeypatch.setenv("NVEMBED_MODEL", str(tiny_folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def call(*args: object) -> tuple[int, str]:
        code = run(["corpus", *map(str, args)])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return call


@pytest.mark.parametrize(
    ("args", "encode"),
    [
        ((), lambda m, t: m.encode_document(t)),
        (("--input-type", "query"), lambda m, t: m.encode_query(t)),
        (("--task", "Find it"), lambda m, t: m.encode_query(t, task="Find it")),
        (("--prompt", "say: "), lambda m, t: m.encode(t, prompt="say: ")),
        (("--truncate-dim", 16), lambda m, t: m.encode_document(t, truncate_dim=16)),
        (("--max-length", 4), lambda m, t: m.encode_document(t, max_length=4)),
        (("--no-normalize",), lambda m, t: m.encode_document(t, normalize=False)),
    ],
)
def test_options_reach_the_model(corpus_command, tmp_path, corpus, tiny_model, args, encode):
    code, err = corpus_command(corpus, tmp_path / "out", *args)
    assert (code, err.count("\n")) == (0, 1), err
    assert "encoded 150 texts; all 3 parts are in" in err
    found, expected = rows(tmp_path / "out"), encode(tiny_model, texts(COUNT))
    assert list(found) == [f"d{i}" for i in range(COUNT)]
    np.testing.assert_allclose(np.stack(list(found.values())), expected, rtol=1e-5, atol=1e-6)


def test_precisions_formats_and_chunks(corpus_command, tmp_path, corpus, tiny_model):
    args = ("--part-format", "npy", "--part-texts", 100, "--precision", "float16")
    assert corpus_command(corpus, tmp_path / "a", *args)[0] == 0
    half = np.load(tmp_path / "a" / "part-00001.npy")
    assert (half.dtype, half.shape) == (np.float16, (50, 64))
    expected = tiny_model.encode_document(texts(COUNT))[100:]
    np.testing.assert_allclose(half, expected, atol=1e-3)
    args = ("--precision", "int8", "--chunk-tokens", 8, "--overlap", 2)
    assert corpus_command(corpus, tmp_path / "b", *args)[0] == 0
    table = pq.read_table(tmp_path / "b" / "part-00000.parquet")
    assert table.column_names == ["id", "chunk", "start", "end", "embedding"]
    assert str(table.schema.field("embedding").type.value_type) == "int8"
    assert len(table) > 64


def test_notes_say_what_was_done(corpus_command, tmp_path, corpus):
    out = tmp_path / "out"
    shard = ("--num-shards", 2, "--shard-index")
    code, err = corpus_command(corpus, out, *shard, 0)
    assert code == 0
    assert "encoded 86 texts into" in err
    assert "1 of 3 parts, of other shards, are not there yet" in err
    assert "encoded 64 texts; all 3 parts" in corpus_command(corpus, out, *shard, 1)[1]
    assert "nothing to do: all 3 parts of 150 texts" in corpus_command(corpus, out)[1]
    code, err = corpus_command(corpus, out, "--truncate-dim", 8)
    assert (code, err.count("\n")) == (1, 1)
    assert "was begun with options = " in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--shard-index", 1), "are given together"),
        (("--num-shards", 2), "are given together"),
        (("--shard-index", 2, "--num-shards", 2), "must be 0 to 1"),
        (("--overlap", 3), "less than --chunk-tokens (0)"),
        (("--chunk-tokens", 9, "--part-format", "npy"), "needs parquet parts"),
        (("--prompt", "a", "--task", "b"), "--prompt and --prompt-name stand in"),
        (("--workers", 0), "--workers"),
        (("--backend", "dask"), "dask"),
    ],
)
def test_wrong_usage(corpus_command, tmp_path, corpus, args, words):
    code, err = corpus_command(corpus, tmp_path / "out", *args)
    assert (code, err.count("\n")) == (2, 1), err
    assert words in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path, corpus, tiny_folder):
    options = ["--model", str(tiny_folder), "--part-texts", "5"]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}

    def start(out: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "nvembed_jax", "corpus", str(corpus), str(out), *options]
        return subprocess.Popen(command, env=environment)

    assert start(tmp_path / "whole").wait() == 0
    out = tmp_path / "out"
    process = start(out)
    end = time.monotonic() + 120
    while len(list(out.glob("part-*"))) < 3:
        assert time.monotonic() < end
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = len(list(out.glob("part-*")))
    assert 3 <= before < 30
    assert start(out).wait() == 0
    assert files(out) == files(tmp_path / "whole")
