"""Mining: the rules on matrices checked by eye, and whole runs with teachers that are tables."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import os

import numpy as np
import pytest

from nvembed_jax.data.examples import Example, read_examples
from nvembed_jax.search.mining import mine
from nvembed_jax.search.mining_rules import (
    MiningOptions,
    Rule,
    allowed_mask,
    choose,
    keep_mask,
    reduce_positives,
    score_limits,
)

YES, NO = True, False
SCORES = np.array([[0.9, 0.77, 0.74, 0.5, 0.1], [0.45, 0.41, 0.3, -0.2, -0.5]], np.float32)
POSITIVE = np.array([0.8, 0.44], np.float32)


@pytest.mark.parametrize(
    ("method", "threshold", "expected"),
    [
        ("naive", None, [[YES, YES, YES, YES, YES], [YES, YES, YES, YES, YES]]),
        ("random", None, [[YES, YES, YES, YES, YES], [YES, YES, YES, YES, YES]]),
        ("shifted", 2, [[NO, NO, YES, YES, YES], [NO, NO, YES, YES, YES]]),
        ("abs", None, [[NO, NO, NO, YES, YES], [YES, YES, YES, YES, YES]]),
        ("abs", 0.4, [[NO, NO, NO, NO, YES], [NO, NO, YES, YES, YES]]),
        # Below 0.8 - 0.05 = 0.75 and 0.44 - 0.05 = 0.39.
        ("margin-pos", None, [[NO, NO, YES, YES, YES], [NO, NO, YES, YES, YES]]),
        # Below 0.8 x 0.95 = 0.76 and 0.44 x 0.95 = 0.418.
        ("perc-pos", None, [[NO, NO, YES, YES, YES], [NO, YES, YES, YES, YES]]),
        ("perc-pos", 1.0, [[NO, YES, YES, YES, YES], [NO, YES, YES, YES, YES]]),
    ],
)
def test_rules_keep_what_they_say(method, threshold, expected):
    rule = Rule(method=method, threshold=threshold)
    allowed = np.ones((2, 5), bool)
    assert keep_mask(rule, SCORES, allowed, POSITIVE).tolist() == expected


def test_ranks_are_counted_without_known_positives():
    allowed = np.array([[NO, YES, YES, YES, YES], [YES, NO, YES, NO, YES]])
    keep = keep_mask(Rule(method="shifted", threshold=1), SCORES, allowed, POSITIVE)
    assert keep.tolist() == [[NO, NO, YES, YES, YES], [NO, NO, YES, NO, YES]]


def test_known_positives_are_never_kept():
    rows = np.array([[4, 2, 7], [7, 1, 4]])
    allowed = allowed_mask(rows, [np.array([2, 9]), np.array([4, 7])])
    assert allowed.tolist() == [[YES, NO, YES], [NO, YES, NO]]
    keep = keep_mask(Rule(method="naive"), SCORES[:, :3], allowed, POSITIVE)
    np.testing.assert_array_equal(keep, allowed)


def test_the_limit_of_a_negative_positive_score_is_below_it():
    positive = np.array([0.5, 0.0, -0.5], np.float32)
    limits = score_limits(Rule(threshold=0.9), positive)
    np.testing.assert_allclose(limits, [0.45, 0.0, -0.55], atol=1e-6)


def test_of_several_positives_the_lowest_or_the_highest_counts():
    scores = [np.array([0.9, 0.2, 0.5], np.float32), np.array([0.3], np.float32)]
    np.testing.assert_allclose(reduce_positives(scores, "min"), [0.2, 0.3])
    np.testing.assert_allclose(reduce_positives(scores, "each"), [0.2, 0.3])
    np.testing.assert_allclose(reduce_positives(scores, "max"), [0.9, 0.3])


def test_the_first_or_a_sample_of_the_first_are_chosen():
    keep = np.array([NO, YES, YES, NO, YES, YES])
    assert choose(keep, 2).tolist() == [1, 2]
    drawn = {tuple(choose(keep, 2, 3, np.random.default_rng(seed))) for seed in range(40)}
    assert drawn == {(1, 2), (1, 4), (2, 4)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"method": "perc_pos"}, "did you mean 'perc-pos'"),
        ({"positives": "mean"}, "positives must be one of min, max, each"),
        ({"method": "naive", "threshold": 0.5}, "has no threshold"),
        ({"threshold": 95.0}, "share of the positive's score"),
        ({"method": "shifted", "threshold": 2.5}, "whole number"),
        ({"method": "margin-pos", "threshold": -0.1}, "0 or more"),
        ({"method": "abs", "threshold": 70.0}, "is a cosine"),
        ({"threshold": float("nan")}, "finite"),
    ],
)
def test_rules_that_mean_nothing_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Rule(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"negatives": 0}, "at least 1"),
        ({"depth": 10, "max_depth": 5}, "max_depth must be at least depth"),
        ({"sample": 3}, "at least the 7 negatives"),
        ({"combine": "mean"}, "combine must be one of"),
    ],
)
def test_options_that_mean_nothing_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MiningOptions(**kwargs)


class Table:
    """A teacher: the embedding of a text is its number, that of a query 1: the score of a passage
    is its number, whatever the query."""

    def __init__(self, numbers, fingerprint="table"):
        self.numbers, self.fingerprint = numbers, fingerprint
        self.encoded, self.tasks = [], {}

    def encode_query(self, inputs, task=None, **kwargs):
        self.tasks |= dict.fromkeys(inputs, task)
        return np.ones((len(inputs), 1), np.float32)

    def encode_document(self, inputs, **kwargs):
        self.encoded += inputs
        return np.array([[self.numbers[text]] for text in inputs], np.float32)


class Hashed:
    """A teacher of small whole numbers made of the text: exact scores, many ties."""

    def __init__(self, seed=0, stop_after=None):
        self.fingerprint, self.calls, self.stop_after = f"hashed {seed}", 0, stop_after

    def encode_document(self, inputs, **kwargs):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        seeds = [
            hashlib.sha256((self.fingerprint + text.casefold()).encode()).digest()
            for text in inputs
        ]
        rows = [np.frombuffer(seed[:16], np.uint8) % 7 for seed in seeds]
        return np.array(rows, np.float32) - 2

    def encode_query(self, inputs, task=None, **kwargs):
        return self.encode_document(inputs)


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text("utf8").splitlines()]


def run(tmp_path, rows, teacher, corpus=None, **kwargs):
    """The rows that mining gives, and its report."""
    pairs = write(tmp_path / "pairs.jsonl", rows)
    if corpus is not None:
        texts = [{"_id": str(i), "text": text} for i, text in enumerate(corpus)]
        kwargs["corpus"] = write(tmp_path / "corpus.jsonl", texts)
    cache = kwargs.pop("cache", None)
    corpus_file = kwargs.pop("corpus", None)
    rule = {k: kwargs.pop(k) for k in ("method", "threshold", "positives") if k in kwargs}
    options = MiningOptions(rule=Rule(**rule), **kwargs)
    teachers = teacher if isinstance(teacher, list) else [teacher]
    report = mine(
        pairs, tmp_path / "out.jsonl", teachers, corpus=corpus_file, options=options, cache=cache
    )
    return read(tmp_path / "out.jsonl"), report


POOL = {"p": 0.8, "a": 0.9, "b": 0.7, "c": 0.6, "d": 0.2}


def test_a_run_keeps_fields_and_writes_scores(tmp_path):
    row = {"query": "q", "positive": "p", "task": "Find it", "id": 7, "negatives": ["old", "p"]}
    table = Table(POOL)
    mined, report = run(tmp_path, [row], table, corpus=["a", "b", "c", "d"], negatives=2)
    assert mined == [
        {
            **row,
            "negatives": ["b", "c"],
            "positive_score": 0.8,
            "negative_scores": [0.7, 0.6],
        }
    ]
    assert table.tasks == {"q": "Find it"}
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "out.jsonl", "pairs.jsonl"]
    assert (report.queries, report.pool, report.negatives, report.replaced) == (1, 4, 2, 1)
    # "a" of four candidates is above 0.76; the positive is not in the pool.
    assert (report.candidates, report.filtered, report.known) == (4, 1, 0)
    assert (report.filtered_fraction, report.mean_negatives, report.short) == (0.25, 2.0, 0)
    assert next(iter(read_examples(tmp_path / "out.jsonl"))).negative_scores == (0.7, 0.6)


@pytest.mark.parametrize(
    ("method", "threshold", "expected"),
    [
        ("naive", None, ["a", "b"]),
        ("shifted", 2, ["c", "d"]),
        ("abs", 0.65, ["c", "d"]),
        ("margin-pos", 0.05, ["b", "c"]),
        ("perc-pos", 0.8, ["c", "d"]),
    ],
)
def test_methods_mine_what_they_should(tmp_path, method, threshold, expected):
    mined, _ = run(
        tmp_path,
        [{"query": "q", "positive": "p"}],
        Table(POOL),
        corpus=list(POOL),
        negatives=2,
        method=method,
        threshold=threshold,
    )
    assert mined[0]["negatives"] == expected


def test_positives_are_the_pool_and_known_ones_are_left_out(tmp_path):
    """Other rows of the same query, other spellings, and rows of the same group count."""
    numbers = {"p": 0.9, "P  2": 0.8, "Q": 0.7, "r": 0.6, "s": 0.5, "t": 0.4}
    rows = [
        {"query": "Q", "positive": ["p", "P "]},  # "P " is "p" again
        {"query": " q ", "positive": "P  2"},
        {"query": "other", "positive": "Q"},  # the query's own text
        {"query": "third", "positive": "r", "group": "g"},
        {"query": "fourth", "positive": "s", "group": "g"},
        {"query": "r", "positive": "t"},
    ]
    mined, report = run(tmp_path, rows, Table(numbers), method="naive")
    assert [row["negatives"] for row in mined] == [
        ["r", "s", "t"],
        ["r", "s", "t"],
        ["p", "P  2", "r", "s", "t"],
        ["p", "P  2", "Q", "t"],  # not "s", of the same group
        ["p", "P  2", "Q", "t"],
        ["p", "P  2", "Q", "s"],  # not "r", the query itself
    ]
    assert (report.pool, report.short, report.none) == (6, 6, 0)


def test_equal_texts_of_the_corpus_are_one_candidate(tmp_path):
    numbers = {"p": 0.8, "Aa b": 0.7, "c": 0.6}
    corpus = ["Aa b", "aa  B", "AA b ", "P", "c", " "]
    numbers |= dict.fromkeys(corpus[1:3], 0.7) | {"P": 0.8}
    mined, report = run(
        tmp_path, [{"query": "q", "positive": "p"}], Table(numbers), corpus, method="naive"
    )
    assert (mined[0]["negatives"], report.pool) == (["Aa b", "c"], 3)


def test_negatives_of_the_rows_join_the_pool_when_asked(tmp_path):
    rows = [{"query": "q", "positive": "p", "negatives": ["b"]}]
    mined, _ = run(tmp_path, rows, Table(POOL))
    assert mined[0]["negatives"] == mined[0]["negative_scores"] == []
    mined, _ = run(tmp_path, rows, Table(POOL), pool_negatives=True)
    assert mined[0]["negatives"] == ["b"]
    with pytest.raises(ValueError, match="with a corpus leave it away"):
        run(tmp_path, rows, Table(POOL), corpus=["a"], pool_negatives=True)


def test_several_positives_by_the_lowest_the_highest_and_each(tmp_path):
    numbers = {"hi": 0.9, "lo": 0.5, "a": 0.8, "b": 0.6, "c": 0.4}
    row = {"query": "q", "positive": ["hi", "lo"], "x": 1}
    corpus = ["a", "b", "c", "lo"]
    mined, _ = run(tmp_path, [row], Table(numbers), corpus, positives="min")
    assert (mined[0]["negatives"], mined[0]["positive_score"]) == (["c"], 0.5)
    mined, _ = run(tmp_path, [row], Table(numbers), corpus, positives="max")
    assert (mined[0]["negatives"], mined[0]["positive_score"]) == (["a", "b", "c"], 0.9)
    mined, report = run(tmp_path, [row], Table(numbers), corpus, positives="each")
    assert [(r["positive"], r["negatives"], r["positive_score"], r["x"]) for r in mined] == [
        ("hi", ["a", "b", "c"], 0.9, 1),
        ("lo", ["c"], 0.5, 1),
    ]
    assert mined[0]["group"] == mined[1]["group"]
    assert report.queries == 2


def test_negative_positive_scores_still_filter(tmp_path):
    numbers = {"p": -0.4, "a": -0.3, "b": -0.41, "c": -0.5}
    mined, _ = run(tmp_path, [{"query": "q", "positive": "p"}], Table(numbers), list(numbers))
    assert mined[0]["negatives"] == ["c"]  # below -0.42


def test_the_search_goes_deeper_up_to_a_bound(tmp_path):
    numbers = {"p": 0.5} | {f"n{i}": 0.9 - i / 100 for i in range(80)}
    args = ([{"query": "q", "positive": "p"}], Table(numbers), list(numbers))
    mined, report = run(tmp_path, *args, depth=4, max_depth=64, negatives=3)
    assert mined[0]["negatives"] == ["n43", "n44", "n45"]
    assert (report.candidates, report.filtered, report.short) == (4, 4, 0)
    mined, report = run(tmp_path, *args, depth=4, max_depth=43, negatives=3)
    assert (mined[0]["negatives"], report.short, report.none) == ([], 1, 1)


def test_samples_are_drawn_from_the_first_that_pass(tmp_path):
    numbers = {"p": 0.9} | {f"n{i}": 0.8 - i / 100 for i in range(50)}
    args = ([{"query": "q", "positive": "p"}], Table(numbers), list(numbers))
    seen = set()
    for seed in range(8):
        mined, _ = run(tmp_path, *args, negatives=2, sample=4, depth=3, seed=seed)
        again, _ = run(tmp_path, *args, negatives=2, sample=4, depth=50, seed=seed)
        assert mined == again
        seen.update(mined[0]["negatives"])
        assert mined[0]["negative_scores"] == sorted(mined[0]["negative_scores"], reverse=True)
    assert seen == {"n0", "n1", "n2", "n3"}


def test_random_negatives_come_from_all_of_the_pool(tmp_path):
    numbers = {f"p{i}": i / 100 for i in range(30)}
    rows = [{"query": "q", "positive": [f"p{i}" for i in range(20, 30)]}]
    seen = set()
    for seed in range(8):
        mined, report = run(
            tmp_path, rows, Table(numbers), list(numbers), method="random", negatives=5, seed=seed
        )
        assert len(mined[0]["negatives"]) == 5
        seen.update(mined[0]["negatives"])
        assert report.filtered == 0
    assert seen <= {f"p{i}" for i in range(20)}
    assert len(seen) > 15
    mined, _ = run(tmp_path, rows, Table(numbers), list(numbers), method="random", negatives=50)
    assert len(mined[0]["negatives"]) == 20


def many(count):
    rows = [{"query": f"query {i}", "positive": f"text {i}"} for i in range(count)]
    return rows + [{"query": f"query {i % 5}", "positive": f"more {i}"} for i in range(count // 4)]


def test_blocks_do_not_change_the_result(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", many(120))
    outputs = set()
    for i, (queries, passages, texts) in enumerate([(256, 16384, 2048), (7, 64, 11), (1, 256, 50)]):
        out = tmp_path / f"{i}.jsonl"
        options = MiningOptions(query_block=queries, passage_block=passages, depth=10)
        mine(pairs, out, [Hashed()], options=options, encode_block=texts)
        outputs.add(out.read_bytes())
    assert len(outputs) == 1
    assert sum(map(len, (row["negatives"] for row in read(out)))) > 700


@pytest.mark.parametrize("stop_after", [0, 3, 9, 10, 17])
def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path, stop_after):
    pairs = write(tmp_path / "pairs.jsonl", many(80))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    first = Hashed()
    mine(pairs, whole, [first], encode_block=10)
    with pytest.raises(KeyboardInterrupt):
        mine(pairs, out, [Hashed(stop_after=stop_after)], encode_block=10)
    assert not out.exists()
    assert (tmp_path / "out.jsonl.cache").is_dir()
    second = Hashed()
    mine(pairs, out, [second], encode_block=10)
    assert out.read_bytes() == whole.read_bytes()
    assert second.calls == first.calls - stop_after
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "pairs.jsonl", "whole.jsonl"]


def test_a_cache_serves_other_methods_but_not_other_teachers(tmp_path):
    cache, rows = tmp_path / "cache", many(20)
    run(tmp_path, rows, Hashed(), cache=cache)
    mined, _ = run(tmp_path, rows, Hashed(stop_after=0), cache=cache, method="naive")
    assert mined[0]["negatives"]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rows, Hashed(seed=1, stop_after=0), cache=cache)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rows[:-1], Hashed(stop_after=0), cache=cache)


def test_a_cache_in_use_is_refused(tmp_path):
    cache = tmp_path / "cache"
    run(tmp_path, many(4), Hashed(), cache=cache)
    with next(cache.glob("*.lock")).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is writing"):
            run(tmp_path, many(4), Hashed(), cache=cache)


def test_a_full_disk_is_said_before_it_kills(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for the embeddings \(\d+ bytes\)"):
        run(tmp_path, many(4), Hashed())
    assert not list(tmp_path.rglob("*.npy"))
    monkeypatch.undo()
    assert run(tmp_path, many(4), Hashed())[1].queries == 5


def test_several_teachers_are_averaged_on_the_scale_of_the_first(tmp_path):
    """The second teacher's numbers are the first's times ten plus three: it changes nothing."""
    other = Table({text: 10 * score + 3 for text, score in POOL.items()}, "second")
    rows = [{"query": "q", "positive": "p"}]
    alone, _ = run(tmp_path, rows, Table(POOL), list(POOL), threshold=0.8)
    both, _ = run(tmp_path, rows, [Table(POOL), lambda: other], list(POOL), threshold=0.8)
    assert both[0]["negatives"] == alone[0]["negatives"] == ["c", "d"]
    np.testing.assert_allclose(both[0]["positive_score"], 0.8, atol=1e-5)
    np.testing.assert_allclose(both[0]["negative_scores"], [0.6, 0.2], atol=1e-5)


def test_averaged_scores_are_those_of_standardised_matrices(tmp_path, monkeypatch):
    monkeypatch.setattr("nvembed_jax.search.mining_embeddings.JOINED_ROWS", 16)
    rows = many(40)
    teachers = [Hashed(1), Hashed(2)]
    mined, _ = run(tmp_path, rows, teachers, method="naive", negatives=4, depth=5)
    texts = [row["positive"] for row in rows]
    scores = []
    queries = list(dict.fromkeys(row["query"] for row in rows))
    for teacher in teachers:
        s = teacher.encode_query(queries) @ teacher.encode_document(texts).T
        scores.append((s.mean(), s.std(), s))
    mean, spread, _ = scores[0]
    joined = mean + spread * np.mean([(s - m) / d for m, d, s in scores], axis=0)
    for row in mined[5:40]:  # those with one positive only
        of_query = joined[queries.index(row["query"])]
        own = texts.index(row["positive"])
        assert row["positive_score"] == pytest.approx(of_query[own], abs=1e-4)
        best = np.sort(np.delete(of_query, own))[::-1][:4]
        np.testing.assert_allclose(row["negative_scores"], best, atol=1e-4)


def test_intersect_asks_every_teacher(tmp_path):
    strict = Table({"p": 0.5, "a": 0.1, "b": 0.49, "c": 0.2, "d": 0.1}, "second")
    teachers = [Table(POOL), strict]
    rows = [{"query": "q", "positive": "p"}]
    mined, _ = run(tmp_path, rows, teachers, list(POOL), combine="intersect")
    assert mined[0]["negatives"] == ["c", "d"]  # the first forbids "a", the second "b"


def test_examples_may_come_from_a_program_and_outputs_may_be_gzipped(tmp_path):
    examples = (Example(query=f"q{i}", positives=(f"p{i}",)) for i in range(9))
    report = mine(examples, tmp_path / "out.jsonl.gz", [Hashed()])
    with gzip.open(tmp_path / "out.jsonl.gz", "rt", encoding="utf8") as lines:
        rows = [json.loads(line) for line in lines]
    assert (len(rows), report.queries, report.pool) == (9, 9, 9)


def test_bad_input_is_refused_with_its_place(tmp_path):
    out = tmp_path / "out.jsonl"
    good = json.dumps({"query": "q", "positive": "p"})
    for line, part in (
        ("{", "not JSON"),
        ('{"query": "q"}', "no 'positive'"),
        ('{"query": "q", "positive": ""}', "blank"),
        ('{"query": "q", "positive": "p", "querry": 1}', "did you mean 'query'"),
    ):
        (tmp_path / "bad.jsonl").write_text(f"{good}\n{line}\n")
        with pytest.raises(ValueError, match=rf"bad.jsonl:2: .*{part}"):
            mine(tmp_path / "bad.jsonl", out, [Hashed(stop_after=0)])
    (tmp_path / "corpus.jsonl").write_text('{"_id": 1, "text": "a"}\n{"_id": 2}\n')
    pairs = write(tmp_path / "pairs.jsonl", many(4))
    with pytest.raises(ValueError, match=r"corpus.jsonl:2: no field 'text'"):
        mine(pairs, out, [Hashed()], corpus=tmp_path / "corpus.jsonl")
    with pytest.raises(ValueError, match="no teachers"):
        mine(pairs, out, [])
    with pytest.raises(ValueError, match="is the input too"):
        mine(pairs, pairs, [Hashed()])
    with pytest.raises(ValueError, match=r"expected a \.jsonl"):
        mine(pairs, tmp_path / "out.parquet", [Hashed()])
    with pytest.raises(FileNotFoundError, match="no such file"):
        mine(tmp_path / "none.jsonl", out, [Hashed()])
    assert sorted(os.listdir(tmp_path)) == ["bad.jsonl", "corpus.jsonl", "pairs.jsonl"]


def test_embeddings_that_are_not_finite_stop_the_run(tmp_path):
    numbers = {"p0": 1.0, "p1": float("nan"), "p2": 0.5}
    rows = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(3)]
    with pytest.raises(ValueError, match="holds NaN"):
        run(tmp_path, rows, Table(numbers))
    assert not (tmp_path / "out.jsonl").exists()
