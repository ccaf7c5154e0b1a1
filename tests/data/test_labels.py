"""Labelled rows become examples without false negatives, the same for the same random state."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nvembed_jax.data.examples import Example
from nvembed_jax.data.labels import LabelledTexts
from nvembed_jax.data.row_examples import labelled_pairs, ranked_candidates, scored_pairs
from nvembed_jax.data.row_file import RowFile


def opener(folder: Path, rows: list, limit: int | None = None):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")
    return lambda keep: RowFile(path, keep, limit=limit)


def labelled(folder: Path, pairs: list[tuple[str, object]], **kw) -> LabelledTexts:
    rows = [{"text": text, "label": label, "split": "train"} for text, label in pairs]
    return LabelledTexts(opener(folder, rows), name="set", **{"negatives": 3, **kw})


def grid(classes: int, texts: int) -> list[tuple[str, object]]:
    return [(f"{label}{i}", label) for i in range(texts) for label in "ABCDEFGH"[:classes]]


def draws(source, rounds: int = 40, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [source.get(i, rng) for _ in range(rounds) for i in range(len(source))]


def test_positive_is_another_text_of_the_class_and_negatives_are_of_other_classes(tmp_path):
    source = labelled(tmp_path, grid(4, 3), task="t")
    assert len(source) == 12
    for example in draws(source):
        (positive,) = example.positives
        assert positive != example.query
        assert positive[0] == example.query[0]
        assert sorted(text[0] for text in example.negatives) == sorted(set("ABCD") - {positive[0]})
        assert (example.task, example.source) == ("t", "set")
        assert example.group == f"set/{positive[0]}"


def test_every_other_text_is_drawn_about_equally_often(tmp_path):
    source = labelled(tmp_path, grid(4, 4), negatives=2)
    drawn = draws(source, rounds=400)
    positives = Counter(e.positives[0] for e in drawn if e.query == "A0")
    negatives = Counter(text for e in drawn if e.query == "A0" for text in e.negatives)
    assert set(positives) == {"A1", "A2", "A3"}
    assert min(positives.values()) > 80  # expected 133
    assert set(negatives) == {f"{label}{i}" for label in "BCD" for i in range(4)}
    assert min(negatives.values()) > 30  # expected 67


def test_few_classes_give_several_negatives_each_without_repeating_a_text(tmp_path):
    source = labelled(tmp_path, [*grid(3, 4), ("C4", "C")], negatives=7)
    for example in draws(source):
        counts = Counter(text[0] for text in example.negatives)
        assert len(set(example.negatives)) == 7
        assert sorted(counts.values()) == [3, 4]
    few = labelled(tmp_path, grid(3, 2), negatives=7)
    assert all(len(example.negatives) == 4 for example in draws(few))


def test_text_with_several_labels_is_never_a_negative(tmp_path):
    pairs = [*grid(3, 2), ("both", "A"), ("both ", "B"), ("A1", "A")]
    source = labelled(tmp_path, pairs, negatives=9)
    assert len(source) == 8
    assert source.skipped == {"repeated": 1, "alone in their class": 0}
    seen_as_positive = set()
    for example in draws(source):
        assert "both" not in [text.strip() for text in example.negatives]
        if example.query.strip() == "both":
            assert {text[0] for text in example.negatives} == {"C"}
        if example.positives[0].strip() == "both":
            assert {text[0] for text in example.negatives} == {"C"}
            seen_as_positive.add(example.query)
    assert seen_as_positive == {"A0", "A1", "B0", "B1"}


def test_class_of_one_text_is_skipped_and_counted_but_serves_as_negative(tmp_path):
    source = labelled(tmp_path, [*grid(2, 2), ("lonely", "C"), ("lonely", "C")], labels="examples")
    assert [source.get(i, np.random.default_rng(0)).query for i in range(len(source))] == [
        "A0",
        "B0",
        "A1",
        "B1",
    ]
    assert source.skipped == {"repeated": 1, "alone in their class": 1}
    assert all("lonely" in example.negatives for example in draws(source, 3))


def test_same_random_state_gives_the_same_example(tmp_path):
    source = labelled(tmp_path, grid(5, 6))
    copy = pickle.loads(pickle.dumps(labelled(tmp_path, grid(5, 6))._rows))
    assert len(copy) == 30
    assert draws(source, 2, seed=3) == draws(source, 2, seed=3)
    assert draws(source, 2, seed=3) != draws(source, 2, seed=4)
    with pytest.raises(IndexError, match="no example 30; there are 30"):
        source.get(30, np.random.default_rng(0))


def test_two_classes_use_label_texts_unless_told_otherwise(tmp_path):
    pairs = [*[(f"n{i}", "not_toxic") for i in range(2)], ("t0", "toxic"), ("x", "toxic")]
    pairs += [("x", "not_toxic")]
    source = labelled(tmp_path, pairs)
    assert source.labels == "texts"
    assert source.skipped == {"repeated": 0, "several labels": 2}
    assert [(e.query, e.positives, e.negatives) for e in draws(source, 1)] == [
        ("n0", ("not toxic",), ("toxic",)),
        ("n1", ("not toxic",), ("toxic",)),
        ("t0", ("toxic",), ("not toxic",)),
    ]
    assert labelled(tmp_path, pairs, labels="examples").labels == "examples"
    assert labelled(tmp_path, grid(3, 2)).labels == "examples"


def test_label_texts_can_be_given_and_used_for_many_classes(tmp_path):
    pairs = [("a", 0), ("b", 1), ("c", 2)]
    names = {"0": "sad", "1": "glad", "2": "mad"}
    source = labelled(tmp_path, pairs, labels="texts", label_texts=names, negatives=1)
    assert {(e.query, e.positives[0], e.negatives[0]) for e in draws(source)} == {
        ("a", "sad", "glad"), ("a", "sad", "mad"), ("b", "glad", "sad"),
        ("b", "glad", "mad"), ("c", "mad", "sad"), ("c", "mad", "glad"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "kw", "message"),
    [
        ([("a", "0"), ("b", "1")], {}, "the label '0' says nothing as a text; pass label_texts="),
        ([("a", "x"), ("b", "y")], {"label_texts": {"x": "1"}}, "no text for the label 'y'"),
        ([("a", "x"), ("b", "y")], {"label_texts": {"z": "1"}}, "'z'; did you mean"),
        ([("a", "x"), ("b", "x_")], {}, "'x' is blank or stands for two labels"),
        ([("a", "x"), ("b", "x")], {}, "one class only ('x')"),
        ([("a", "x"), ("b", "y"), ("c", "z")], {}, "no class has two different texts"),
        ([("a", "x"), ("b", "y")], {"labels": "text"}, "labels must be 'auto', 'examples' or"),
        ([("a", "x"), ("b", "y")], {"negatives": -1}, "negatives must be 0 or more; got -1"),
        ([("a", None)], {}, "rows.jsonl:1: 'label' holds nothing; expected a string"),
        ([("a", [1])], {}, r"rows.jsonl:1: 'label' holds [1]; expected a string"),
        ([("a", True)], {}, "rows.jsonl:1: 'label' holds True; expected a string"),
        ([("a", "x"), (" ", "x")], {}, "rows.jsonl:2: 'text' is blank"),
        ([("a", "x"), (3, "x")], {}, "rows.jsonl:2: 'text' holds int; expected a string"),
    ],
)
def test_bad_labelled_sets_are_told_what_is_wrong(tmp_path, pairs, kw, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        labelled(tmp_path, pairs, **kw)


def test_only_training_rows_are_used_and_sets_without_splits_are_refused(tmp_path):
    rows = [
        {"text": f"{split}{label}{i}", "label": label, "split": split}
        for split in ("test", "train", "validation")
        for label in "abc"
        for i in range(2)
    ]
    source = LabelledTexts(opener(tmp_path, rows), name="set")
    texts = {t for e in draws(source) for t in (e.query, *e.positives, *e.negatives)}
    assert texts == {f"train{label}{i}" for label in "abc" for i in range(2)}
    with pytest.raises(ValueError, match="no labelled text in the split 'train'; splits there: te"):
        LabelledTexts(opener(tmp_path, rows[:6]), name="set")
    bare = [{"text": row["text"], "label": row["label"]} for row in rows]
    with pytest.raises(
        ValueError, match=r"rows.jsonl:1: the row has no 'split': an evaluation set"
    ):
        LabelledTexts(opener(tmp_path, bare), name="set")
    assert len(LabelledTexts(opener(tmp_path, bare), name="set", allow_evaluation=True)) == 18


def test_fingerprint_follows_rows_and_options(tmp_path):
    prints = [
        labelled(tmp_path, pairs, **kw).fingerprint
        for pairs, kw in (
            (grid(3, 2), {}),
            (grid(3, 3), {}),
            (grid(3, 2), {"negatives": 2}),
            (grid(3, 2), {"task": "t"}),
            (grid(3, 2), {"labels": "texts"}),
        )
    ]
    assert len(set(prints)) == 5
    assert labelled(tmp_path, grid(3, 2)).fingerprint == prints[0]


def sts(score: float, first: str = "a", second: str = "b", **kw) -> dict:
    return {"text1": first, "text2": second, "score": score, "split": "train", **kw}


def test_scored_pairs_from_four_of_five_give_both_directions(tmp_path):
    rows = [sts(5, "a", "b"), sts(3.99), sts(4, "c", "d"), sts(5, "e", "e"), sts(0, split="test")]
    source = scored_pairs(opener(tmp_path, rows), name="set", task="t")
    assert source.symmetric
    assert source.skipped == {"no positive": 2}
    made = [source.get(i) for i in range(len(source))]
    assert [(e.query, e.positives) for e in made] == [
        ("a", ("b",)), ("b", ("a",)), ("c", ("d",)), ("d", ("c",)),
    ]  # fmt: skip
    assert made[0] == Example(query="a", positives=("b",), task="t", source="set")


def test_scored_pairs_are_scaled_by_the_range(tmp_path):
    rows = [sts(score, f"a{score}") for score in (1.0, 3.4, 3.399, 4.0)]
    source = scored_pairs(opener(tmp_path, rows), name="set", min_score=1.0, max_score=4.0)
    assert [source.get(i).query for i in range(0, len(source), 2)] == ["a3.4", "a4.0"]
    for row, message in ((sts(4.5), "the score 4.5 is outside 1 .. 4"),
                         (sts(float("nan")), "'score' holds nan"),
                         ({"split": "train"}, "'score' holds nothing"),
                         ({"split": "train", "score": 4}, "no 'text1'")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"rows.jsonl:1: {message}"):
            scored_pairs(opener(tmp_path, [row]), name="set", min_score=1.0, max_score=4.0)


def test_labelled_pairs_of_label_one_give_both_directions(tmp_path):
    rows = [
        {"text1": f"a{i}", "text2": f"b{i}", "label": i % 2, "split": "train"} for i in range(4)
    ]
    source = labelled_pairs(opener(tmp_path, rows), name="set")
    assert [(source.get(i).query, *source.get(i).positives) for i in range(len(source))] == [
        ("a1", "b1"), ("b1", "a1"), ("a3", "b3"), ("b3", "a3"),
    ]  # fmt: skip
    assert len(labelled_pairs(opener(tmp_path, rows, limit=1), name="set")) == 2
    for label in ("1", 2, None, 1.0):
        with pytest.raises(ValueError, match=r"rows.jsonl:1: 'label' holds .*; expected 0 or 1"):
            labelled_pairs(opener(tmp_path, [{**rows[0], "label": label}]), name="set")


def test_ranked_candidates_keep_all_and_drop_negatives_that_are_positives(tmp_path):
    row = {"query": "q", "positive": ["p", "r"], "negative": ["n", "r", "m"], "split": "train"}
    rows = [row, {**row, "positive": []}, {**row, "split": "test"}]
    source = ranked_candidates(opener(tmp_path, rows), name="set")
    assert not source.symmetric
    assert len(source) == 1
    assert source.get(0) == Example(
        query="q", positives=("p", "r"), negatives=("n", "m"), source="set"
    )
    with pytest.raises(ValueError, match=r"rows.jsonl:1: 'negative' holds str; expected a list"):
        ranked_candidates(opener(tmp_path, [{**row, "negative": "n"}]), name="set")
