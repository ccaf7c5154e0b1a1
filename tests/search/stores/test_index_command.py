"""`nvembed index`: built, searched, deleted from and looked at; a build killed for real."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROWS = [
    {"_id": "cat", "text": "the cat sat on the mat", "lang": "en", "year": 2019},
    {"_id": "hund", "text": "Hunde bellen nachts", "lang": "de", "year": 2020},
    {"_id": "void", "text": " ", "lang": "en", "year": 2020},
    {"_id": "descent", "text": "gradient descent finds a minimum", "lang": "en", "year": 2021},
]
TEXTS = {row["_id"]: row["text"] for row in ROWS if row["text"].strip()}


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return path


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


def found(index_command, store, *args) -> list[dict]:
    code, out, err = index_command("search", store, "--json", *args)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("kind", ["faiss", "lancedb", "milvus", "qdrant"])
def test_a_corpus_is_built_searched_and_deleted_from(
    index_command, corpus, store, tiny_model, kind
):
    built = ("build", corpus, store, "--payload-fields", "lang,year")
    code, out, err = index_command(*built, "--kind", kind)
    assert (code, out) == (0, "")
    assert err == (
        f"nvembed: {store}: 4 texts, 0 of them there already; encoded 3 passages of 3 in the "
        f"store\n"
    )
    assert index_command(*built)[2].startswith(f"nvembed: {store}: 4 texts, 3 of them there")
    hits = found(index_command, store, "-q", "cats")
    scores = tiny_model.encode_document(list(TEXTS.values())) @ tiny_model.encode_query("cats")
    expected = dict(zip(TEXTS, scores, strict=True))
    assert [hit["id"] for hit in hits] == sorted(TEXTS, key=lambda id_: -expected[id_])
    for rank, hit in enumerate(hits, start=1):
        assert (hit["rank"], hit["text"]) == (rank, TEXTS[hit["id"]])
        assert hit["score"] == pytest.approx(expected[hit["id"]], abs=1e-5)
    args = ("-q", "cats", "--filter", "lang in en,fr", "--filter", "year>=2020")
    assert [(hit["id"], hit["payload"]) for hit in found(index_command, store, *args)] == [
        ("descent", {"lang": "en", "year": 2021})
    ]
    assert index_command("delete", store, "cat") == (
        0, "", f"nvembed: {store}: removed 1 passages; 2 are left\n",
    )  # fmt: skip
    assert {hit["id"] for hit in found(index_command, store, "-q", "cats")} == {"hund", "descent"}
    info = json.loads(index_command("info", store, "--json")[1])
    assert (info["kind"], info["passages"], info["dim"]) == (kind, 2, tiny_model.embed_dim)
    assert info["fingerprint"] == tiny_model.fingerprint
    assert info["payload_fields"] == {"lang": "str", "year": "int"}


def test_long_texts_are_found_by_their_best_chunk(index_command, tmp_path, store, tiny_model):
    words = " ".join(f"word{i} filler" for i in range(40))
    rows = [{"_id": "long", "text": f"{words} gradient descent {words}"},
            {"_id": "short", "text": "cats"}]  # fmt: skip
    corpus = tmp_path / "a.jsonl"
    corpus.write_text("\n".join(map(json.dumps, rows)))
    args = ("build", corpus, store, "--chunk-tokens", 16, "--overlap", 4)
    assert index_command(*args)[0] == 0
    hits = {hit["id"]: hit for hit in found(index_command, store, "-q", "gradient descent")}
    assert set(hits) == {"long", "short"}
    assert hits["long"]["text"] in rows[0]["text"]
    own = tiny_model.encode_document(hits["long"]["text"])
    score = own @ tiny_model.encode_query("gradient descent")
    assert hits["long"]["score"] == pytest.approx(float(score), abs=1e-5)
    code, _, err = index_command("delete", store, "long", "nobody")
    assert (code, err.count("\n")) == (1, 2)
    assert "1 are left" in err
    assert "has no text with the id 'nobody'" in err
    code, _, err = index_command("build", corpus, store, "--chunk-tokens", 8)
    assert code == 1
    assert 'made with settings {"overlap": 4, "tokens": 16}, not {"overlap": 1, "tokens": 8}' in err


def test_results_and_facts_are_lines(index_command, corpus, store):
    index_command("build", corpus, store, "--embedding-type", "binary")
    code, out, err = index_command("search", store, "-q", "cats", "-q", "dogs", "-k", 2)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# cats", "# dogs"]
    assert len(lines) == 7
    code, out, err = index_command("search", store, "-q", "cats", "-k", 9)
    assert (code, err) == (0, "nvembed: only 3 texts are in the store\n")
    code, out, err = index_command("info", store)
    assert (code, err) == (0, "")
    assert "kind:            faiss\n" in out
    assert "embedding type:  binary\n" in out
    assert "payload fields:  none\n" in out


def test_failures_are_one_line_and_leave_nothing(index_command, corpus, store, tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    before = sorted(os.listdir(tmp_path))
    url = "http://127.0.0.1:1/points"
    for args, code, words in (
        (("build", corpus, store, "--kind", "chroma"), 2, "chroma"),
        (("build", corpus, url), 1, "a server's kind must be"),
        (("build", corpus, store, "--kind", "weaviate"), 1, "needs a server"),
        (("build", tmp_path / "none", store), 1, "no such file"),
        (("build", corpus, store, "--payload-fields", "lagn"), 1, "did you mean 'lang'"),
        (("build", tmp_path / "a.txt", store, "--payload-fields", "x"), 1, "no payload fields"),
        (("build", corpus, store, "--overlap", 3), 2, "--overlap must be less"),
        (("build", corpus, tmp_path), 1, "is not a store"),
        (("search", store, "-q", "x"), 1, "no such store"),
        (("search", store, "-q", " "), 2, "-q needs a text"),
        (("delete", store, "a"), 1, "no such store"),
        (("info", corpus), 1, "is not a store"),
    ):
        got, out, err = index_command(*args)
        assert (got, out) == (code, ""), (args, err)
        assert err.splitlines()[-1].startswith("nvembed: error: "), err
        assert words in err
    assert sorted(os.listdir(tmp_path)) == before


def test_another_model_and_unknown_filters_are_refused(index_command, corpus, store, monkeypatch):
    assert index_command("build", corpus, store)[0] == 0
    code, _, err = index_command("search", store, "-q", "x", "--filter", "lang=en")
    assert (code, "no such field" in err) == (1, True)
    monkeypatch.setattr("nvembed_jax.Embedder.fingerprint", "0000")
    for args in (
        ("search", store, "-q", "x", "-m", "other"),
        ("build", corpus, store, "-m", "new"),
    ):
        code, _, err = index_command(*args)
        assert code == 1
        assert f"not with {args[-1]} (0000)" in err


def test_help_has_examples(index_command):
    for command in ("build", "search", "delete", "info"):
        code, out, _ = index_command(command, "--help")
        assert (code, f"nvembed index {command} " in out) == (0, True)
    assert all(name in index_command("--help")[1] for name in ("build", "search", "delete", "info"))


@pytest.mark.slow
def test_a_killed_command_is_completed_by_the_same_command(tmp_path, store, tiny_folder):
    corpus, count = tmp_path / "corpus.jsonl", 4000
    rows = [json.dumps({"_id": f"d{i}", "text": f"text {i} " + "x y " * (i % 9)})
            for i in range(count)]  # fmt: skip
    corpus.write_text("\n".join(rows))
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "nvembed_jax", "index", "build", str(corpus), str(store)]
    command += ["--model", str(tiny_folder)]

    def written() -> int:
        try:
            with sqlite3.connect(f"file:{store}/points.sqlite?mode=ro", uri=True) as database:
                return database.execute("SELECT count(*) FROM points").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0
        finally:
            if "database" in locals():
                database.close()

    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not written():
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = written()
    assert 0 < before < count
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{before:,} of them there already; encoded {count - before:,} passages" in done.stderr
    with sqlite3.connect(store / "points.sqlite") as database:
        ids = [id_ for (id_,) in database.execute("SELECT id FROM points")]
        joined = database.execute("SELECT count(*) FROM points JOIN vectors USING (row)").fetchone()
        lengths = database.execute("SELECT DISTINCT length(vector) FROM vectors").fetchall()
    database.close()
    assert sorted(ids) == sorted(f"d{i}" for i in range(count))
    assert (joined, lengths) == ((count,), [(4 * np.int64(64),)])
