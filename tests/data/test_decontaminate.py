"""Decontamination: planted copies are found and reported, other rows stay as they are."""

from __future__ import annotations

import builtins
import gzip
import json
import os

import pytest

from nvembed_jax.data.contamination import EvaluationIndex
from nvembed_jax.data.decontaminate import DecontaminationOptions, decontaminate
from nvembed_jax.data.evaluation_texts import EvaluationText, evaluation_texts
from nvembed_jax.data.identity import normalized, text_key

LONG = (
    "The committee met on Tuesday to discuss the budget of the coming year, and after three hours "
    "it adjourned without a vote because two of its members had left early."
)
EDITED = LONG.replace("Tuesday", "Wednesday")
REORDERED = (
    "Because two of its members had left early, it adjourned without a vote after three hours; "
    "the committee met on Tuesday to discuss the budget of the coming year."
)
INSIDE = f"Minutes of the town hall, volume four, page ninety. {LONG} Nobody complained afterwards."
PARAPHRASE = (
    "Next year's finances were debated by the panel, which broke up without any decision since "
    "some people went home before the end."
)


def lines(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf8") as file:
        file.write(text)
    return path


def read(path):
    return [json.loads(line) for line in path.read_text("utf8").splitlines()]


@pytest.fixture
def tasks(tmp_path):
    """One folder for each kind of set."""
    root = tmp_path / "tasks"
    for name in ("fiqa", "banking", "sts", "rerank", "sum", "topics", "trainonly"):
        (root / name).mkdir(parents=True)
    lines(root / "fiqa" / "queries.jsonl.gz", [{"_id": "1", "text": "What is a bond?"}])
    lines(root / "fiqa" / "corpus.jsonl.gz", [{"_id": "1", "title": "Bonds", "text": LONG}])
    lines(root / "fiqa" / "pairs_train.jsonl.gz", [{"query": "train only", "positive": "x"}])
    rows = [("my card is lost", "test"), ("card of the train split", "train")]
    lines(
        root / "banking" / "classification.jsonl.gz",
        [{"text": text, "label": 1, "split": split} for text, split in rows],
    )
    lines(root / "sts" / "sts.jsonl", [{"text1": "a man sings", "text2": "a man chants"}])
    row = {"query": "who sang", "positive": ["he did"], "negative": ["they slept"]}
    lines(root / "rerank" / "reranking.jsonl.gz", [{**row, "split": "validation"}])
    row = {"text": "long article", "human_summaries": ["short one"], "machine_summaries": ["bad"]}
    lines(root / "sum" / "summarization.jsonl.gz", [row])
    lines(root / "topics" / "clustering.jsonl", [{"text": "a topic", "label": "t"}])
    lines(root / "trainonly" / "pairs_train.jsonl.gz", [{"query": "q", "positive": "p"}])
    return root


def pair(query="something else", positive="another thing", **more):
    return {"query": query, "positive": positive, **more}


def run(tmp_path, rows, against, **options):
    pairs = lines(tmp_path / "pairs.jsonl", rows)
    chosen = DecontaminationOptions(**options)
    report = decontaminate(pairs, [against], tmp_path / "out.jsonl", options=chosen)
    return read(tmp_path / "out.jsonl"), report


def test_planted_copies_are_dropped_and_the_rest_stays_as_it_is(tmp_path, tasks):
    clean = [
        pair("Ünïcode stays", "ja", task="t", extra=[1]),
        pair(PARAPHRASE),
        pair("card of the train split"),
        pair("train only"),
    ]
    planted = [
        (pair("What is a bond?"), "query", "exact", "fiqa"),
        (pair("  what IS a\tbond? "), "query", "exact", "fiqa"),
        (pair(positive=LONG), "positive", "exact", "fiqa"),
        (pair(positive=["no", f"bonds {LONG}"]), "positive", "exact", "fiqa"),
        (pair(positive=EDITED), "positive", "minhash", "fiqa"),
        (pair(REORDERED), "query", "minhash", "fiqa"),
        (pair(positive=INSIDE), "positive", "bm25", "fiqa"),
        (pair("My card is lost"), "query", "exact", "banking"),
        (pair(positive="a man chants"), "positive", "exact", "sts"),
        (pair("he did"), "query", "exact", "rerank"),
        (pair("they slept"), "query", "exact", "rerank"),
        (pair("short one"), "query", "exact", "sum"),
        (pair("A topic"), "query", "exact", "topics"),
    ]
    rows = [*clean[:2], *(row for row, *_ in planted), *clean[2:]]
    kept, report = run(tmp_path, rows, tasks)
    assert kept == clean
    assert [(d["field"], d["method"], d["set"]) for d in report.dropped] == [
        tuple(expected) for _, *expected in planted
    ]
    assert (report.rows, report.kept) == (17, 4)
    assert report.by_method == {"exact": 10, "minhash": 2, "bm25": 1}
    assert report.by_set == {
        "fiqa": 7, "banking": 1, "sts": 1, "rerank": 2, "sum": 1, "topics": 1,
    }  # fmt: skip
    assert "trainonly" not in report.texts


def test_the_report_names_text_place_and_match(tmp_path, tasks):
    _, report = run(tmp_path, [pair(), pair("MY CARD  is lost")], tasks)
    written = json.loads((tmp_path / "out.jsonl.report.json").read_text("utf8"))
    assert written == json.loads(json.dumps(report.to_json()))
    assert (written["rows"], written["kept"], written["dropped"]) == (2, 1, 1)
    place = tasks / "banking" / "classification.jsonl.gz"
    assert written["dropped_rows"] == [
        {
            "line": 2,
            "field": "query",
            "text": "MY CARD  is lost",
            "method": "exact",
            "score": 1.0,
            "set": "banking",
            "place": f"{place}:1 text",
            "match": "my card is lost",
        }
    ]
    assert written["evaluation_texts"]["banking"] == 1
    assert written["settings"]["methods"] == ["exact", "minhash", "bm25"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, []),
        ({"fields": "query"}, [1, 2, 3]),
        ({"fields": "positive"}, [0]),
        ({"methods": ("exact",)}, [2, 3]),
        ({"methods": ("exact", "minhash")}, [3]),
        ({"methods": ("bm25",)}, [0]),
        ({"minhash_threshold": 0.99, "methods": ("minhash",)}, [2, 3]),
        ({"bm25_threshold": 1.0, "methods": ("bm25",)}, [0, 2]),
        ({"with_corpus": False}, [1, 2, 3]),
        ({"splits": ("test",)}, []),
    ],
)
def test_options_decide_what_is_dropped(tmp_path, tasks, options, kept):
    rows = [
        pair("what is a bond?"), pair(positive=LONG), pair(positive=EDITED), pair(positive=INSIDE),
    ]  # fmt: skip
    found, _ = run(tmp_path, rows, tasks / "fiqa", **options)
    assert found == [rows[i] for i in kept]


def test_splits_that_are_asked_for_count(tmp_path, tasks):
    rows = [pair("my card is lost"), pair("card of the train split")]
    assert run(tmp_path, rows, tasks / "banking", splits=("train",))[0] == rows[:1]
    assert run(tmp_path, rows, tasks / "banking", splits=("train", "test"))[0] == []
    with pytest.raises(ValueError, match=r"banking: no evaluation texts in it \(splits dev\)"):
        run(tmp_path, rows, tasks / "banking", splits=("dev",))


def test_plain_files_are_evaluation_sets_too(tmp_path):
    (tmp_path / "test.txt").write_text("a first line\n\n  a second line \n")
    lines(tmp_path / "test.jsonl", [{"question": "who?", "answer": "he", "id": "zzz"}])
    found = list(evaluation_texts([tmp_path / "test.txt", tmp_path / "test.jsonl"]))
    assert [text.text for text in found] == ["a first line", "a second line", "who?", "he"]
    assert found[1].place == f"{tmp_path / 'test.txt'}:3"
    assert found[3] == ("test", f"{tmp_path / 'test.jsonl'}:1 answer", "he")


def test_a_text_of_two_sets_counts_for_both(tmp_path):
    texts = [EvaluationText(name, "p:1 text", "same words") for name in ("a", "b", "a")]
    index = EvaluationIndex(texts, methods=("exact",))
    assert len(index) == 1
    found = index.find("Same  words")
    assert found is not None
    assert found.sets == ("a", "b")


def test_the_nearest_duplicate_is_named_among_many():
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi"
    texts = [f"{words} number {i} and so on" for i in range(300)]
    index = EvaluationIndex([EvaluationText("s", f"f:{i}", t) for i, t in enumerate(texts)])
    for method in ("minhash", "bm25"):
        only = EvaluationIndex(
            [EvaluationText("s", f"f:{i}", t) for i, t in enumerate(texts)], methods=(method,)
        )
        found = only.find(texts[217].upper() + "!")
        assert found is not None
        assert (found.method, found.score) == (method, 1.0)
    found = index.find(texts[217])
    assert found is not None
    assert (found.method, found.found.place) == ("exact", "f:217")


@pytest.mark.parametrize("text", ["", "-- !", "ab", "数据", "a b c"])
def test_texts_with_hardly_any_words_are_harmless(text):
    index = EvaluationIndex([EvaluationText("s", "f:1", t) for t in ("", "ab!", "数据库", LONG)])
    found = index.find(text)
    assert found is None or found.method in ("exact", "minhash")
    assert EvaluationIndex([]).find("anything") is None


def test_texts_count_as_equal_by_letters_and_words():
    assert normalized("  \uff26ULL  width\nStraße ") == "full width strasse"
    assert text_key("A  b") == text_key("a b")
    assert text_key("a b") != text_key("ab")


def test_bad_input_is_refused_with_its_place_and_leaves_nothing(tmp_path, tasks):
    good = lines(tmp_path / "pairs.jsonl", [pair()])
    bad = lines(tmp_path / "bad.jsonl", [pair(), {"query": "q"}])
    lines(tmp_path / "odd.jsonl", [{"text": "a"}, {"body": "b"}])
    lines(tmp_path / "list.jsonl", [{"text": 5}])
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("text\n")
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    before = sorted(os.listdir(tmp_path))
    out = tmp_path / "out.jsonl"
    for pairs, against, message in (
        (bad, tasks, r"bad.jsonl:2: no 'positive'"),
        (good, tmp_path / "odd.jsonl", r"odd.jsonl:2: none of the fields"),
        (good, tmp_path / "list.jsonl", r"list.jsonl:1: 'text' holds int"),
        (good, tmp_path / "empty", r"empty: no evaluation texts"),
        (good, tasks / "trainonly", r"trainonly: no evaluation texts"),
        (good, tmp_path / "a.csv", r"a.csv: cannot be read"),
        (good, tmp_path / "latin.txt", r"latin.txt:2: not UTF-8"),
    ):
        with pytest.raises(ValueError, match=message):
            decontaminate(pairs, [against], out)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        decontaminate(good, [tmp_path / "none"], out)
    with pytest.raises(ValueError, match="is the input too"):
        decontaminate(good, [tasks], good)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": "negatives"}, "fields must be one of"),
        ({"methods": ("exact", "fuzzy")}, "got fuzzy"),
        ({"methods": ()}, "got none"),
        ({"bm25_threshold": 80.0}, "over 0 and up to 1"),
        ({"splits": ()}, "at least one"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DecontaminationOptions(**options)


def test_a_missing_library_is_named(tmp_path, tasks, monkeypatch):
    imported = builtins.__import__

    def without_datasketch(name, *args, **kwargs):
        if name == "datasketch":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_datasketch)
    with pytest.raises(ImportError, match=r"nvembed_jax\[curate\]"):
        run(tmp_path, [pair()], tasks)
    assert run(tmp_path, [pair()], tasks, methods=("exact", "bm25"))[0] == [pair()]
