"""`nvembed search`: results, queries, folders and chunks, kept indexes, BM25, failures."""

from __future__ import annotations

import io
import json
import os
from collections import namedtuple

import numpy as np
import pytest

from nvembed_jax import Embedder
from nvembed_jax.cli.hits import display_width, hit_lines, one_line, shorten

TEXTS = ["the cat sat on the mat", "dogs bark at night", "", "gradient descent finds a minimum"]
Hit = namedtuple("Hit", "rank score id text")


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def test_results_are_those_of_the_model(nvembed, corpus, model):
    result = nvembed("search", corpus, "-q", "dogs bark at night", "--json")
    assert (result.code, result.err) == (0, "")
    hits = json.loads(result.out)
    assert [sorted(hit) for hit in hits] == [["id", "rank", "score", "text"]] * 3
    scores = model.similarity(
        model.encode_query("dogs bark at night"), model.encode_document(TEXTS)
    )[0]
    order = [i for i in np.argsort(-scores) if TEXTS[i]]
    assert [hit["id"] for hit in hits] == [str(i) for i in order]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[order], atol=1e-5)
    assert [hit["text"] for hit in hits] == [TEXTS[i] for i in order]


def test_lines_are_rank_score_id_and_text(nvembed, corpus):
    hits = json.loads(nvembed("search", corpus, "-q", "x", "-k", 2, "--json").out)
    lines = nvembed("search", corpus, "-q", "x", "-k", 2).out.splitlines()
    assert [line.split(maxsplit=3) for line in lines] == [
        [str(hit["rank"]), f"{hit['score']:.4f}", hit["id"], hit["text"]] for hit in hits
    ]


def test_many_queries_are_told_apart(nvembed, corpus):
    args = ("search", corpus, "-q", "cats", "-q", "dogs", "-k", 1)
    answer = json.loads(nvembed(*args, "--json").out)
    assert [part["query"] for part in answer] == ["cats", "dogs"]
    lines = nvembed(*args).out.splitlines()
    assert (lines[0], lines[2], lines[3]) == ("# cats", "", "# dogs")
    for part, query in zip(answer, ("cats", "dogs"), strict=True):
        alone = json.loads(nvembed("search", corpus, "-q", query, "-k", 1, "--json").out)
        assert [hit["id"] for hit in part["results"]] == [hit["id"] for hit in alone]


def test_k_beyond_the_corpus_gives_all_and_says_so(nvembed, corpus):
    result = nvembed("search", corpus, "-q", "x", "-k", 50, "--json")
    assert (result.code, len(json.loads(result.out))) == (0, 3)
    assert result.err == "nvembed: the corpus has 3 texts, fewer than -k 50: all of them follow\n"


def test_task_goes_into_the_query(nvembed, corpus, model):
    result = nvembed("search", corpus, "-q", "cats", "--task", "Find pets", "-k", 1, "--json")
    query = model.encode_query("cats", task="Find pets")
    best = model.similarity(query, model.encode_document(TEXTS)).max()
    assert json.loads(result.out)[0]["score"] == pytest.approx(best, abs=1e-5)


def test_hybrid_finds_the_rare_word(nvembed, tmp_path):
    (tmp_path / "a.txt").write_text(
        "\n".join([f"line number {i}" for i in range(40)] + ["a zebra"])
    )
    result = nvembed("search", tmp_path / "a.txt", "-q", "zebras", "--hybrid", "-k", 1, "--json")
    assert json.loads(result.out)[0]["text"] == "a zebra"


def test_documents_score_as_their_best_chunk(nvembed, tmp_path, model):
    words = " ".join(f"word{i} filler" for i in range(60))
    rows = [
        {"_id": "long", "text": f"{words} gradient descent {words}"},
        {"_id": "short", "text": "cats"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    args = ("search", path, "-q", "gradient descent", "--json")
    whole = {hit["id"]: hit for hit in json.loads(nvembed(*args).out)}
    result = nvembed(*args, "--chunk-tokens", 16, "--overlap", 4)
    chunks = {hit["id"]: hit for hit in json.loads(result.out)}
    assert set(chunks) == set(whole) == {"long", "short"}
    assert whole["long"]["text"] == rows[0]["text"]
    found = chunks["long"]["text"]
    assert found in rows[0]["text"]
    assert len(found) < 200
    score = model.similarity(model.encode_query("gradient descent"), model.encode_document(found))
    assert chunks["long"]["score"] == pytest.approx(score.item(), abs=1e-5)


def test_folders_are_searched_by_passage_and_say_what_they_pass_over(nvembed, tmp_path):
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "deep" / "long.md").write_text(
        "\n".join(f"sentence number {i} of many." for i in range(70))
    )
    (docs / "b.txt").write_text("cats")
    (docs / "image.png").write_bytes(b"\0\1")
    result = nvembed("search", docs, "-q", "cats", "--json")
    hits = {hit["id"]: hit["text"] for hit in json.loads(result.out)}
    assert set(hits) == {"deep/long.md", "b.txt"}
    assert len(hits["deep/long.md"]) < 1200
    assert result.err == "nvembed: passed over 1 files that are no text: image.png (binary)\n"
    whole = json.loads(nvembed("search", docs, "-q", "cats", "--json", "--chunk-tokens", 0).out)
    assert max(len(hit["text"]) for hit in whole) > 1600


def test_standard_input_is_a_corpus(nvembed, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    result = nvembed("search", "-", "-q", "one", "--json")
    assert {hit["text"] for hit in json.loads(result.out)} == {"one", "two"}


def test_kept_index_is_used_until_the_corpus_changes(nvembed, corpus, tmp_path, monkeypatch):
    args = ("search", corpus, "-q", "cats", "--index", tmp_path / "index")
    first = nvembed(*args)
    assert (first.code, first.err) == (0, "")
    documents = []
    encode = Embedder.encode_document
    monkeypatch.setattr(
        Embedder,
        "encode_document",
        lambda self, x, **kw: documents.append(len(x)) or encode(self, x, **kw),
    )
    assert nvembed(*args) == first
    assert documents == []
    with corpus.open("a") as file:
        file.write("one more\n")
    again = nvembed(*args)
    assert (again.code, documents) == (0, [4])
    assert again.err == f"nvembed: {tmp_path / 'index'}: made anew, because the corpus changed\n"
    assert sorted(os.listdir(tmp_path)) == ["corpus.txt", "index"]


def test_index_of_another_model_is_refused_by_both_names(
    nvembed, one_error, corpus, tmp_path, make_model
):
    args = ("search", corpus, "-q", "cats", "--index", tmp_path / "index")
    assert nvembed(*args).code == 0
    other = make_model(1)
    message = one_error(nvembed(*args, "-m", other), 1)
    assert "tiny-0 (" in message
    assert f"{other} (" in message


def test_failures_are_one_line_and_leave_nothing(nvembed, one_error, tmp_path):
    good = tmp_path / "good.txt"
    good.write_text("one\n")
    (tmp_path / "blank.jsonl").write_text('{"text": " "}\n')
    (tmp_path / "empty.csv").write_text("text\n")
    (tmp_path / "void").mkdir()
    before = sorted(os.listdir(tmp_path))
    for args, part in (
        ((tmp_path / "none",), "no such file or folder"),
        ((tmp_path / "void",), "no texts in it"),
        ((tmp_path / "blank.jsonl",), "every text of the corpus is empty"),
        ((tmp_path / "empty.csv",), "no texts in it"),
        ((good, "--field", "body"), "no fields"),
        ((good, "-m", "./nowhere"), "nowhere"),
        ((good, "--index", good), "is a file"),
        ((good, "--index", tmp_path), "is not an index folder"),
        ((good, "--index", tmp_path / "a" / "b"), "there is no folder"),
        ((good, "--chunk-tokens", 99999), "more than the 32768 tokens"),
    ):
        assert part in one_error(nvembed("search", *args, "-q", "x"), 1)
    assert sorted(os.listdir(tmp_path)) == before


def test_result_lines_fit_the_terminal():
    hits = [Hit(i + 1, 0.5, f"doc{i}", "word " * 50) for i in range(10)]
    lines = hit_lines(hits, 60)
    assert all(len(line) <= 60 for line in lines)
    assert lines[0].startswith(" 1   0.5000  doc0  word word")
    assert lines[9].startswith("10   0.5000  doc9  word word")
    assert lines[0].endswith("…")
    assert hit_lines([], 60) == []


def test_texts_become_one_harmless_line():
    assert one_line("a\n\n b\t\x1b[31mred\x00") == "a b [31mred"
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert shorten("数据数据", 6) == "数据…"
    assert display_width("数é") == 3
    assert display_width("e\u0301") == 1
