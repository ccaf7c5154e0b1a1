"""Every type of task: perfect embeddings score 1, random ones near chance; samples and ties."""

from __future__ import annotations

import random

import numpy as np
import pytest
from made_tasks import INSTRUCTION, MADE, FakeModel, RandomModel, labelled, reranking_rows

from nvembed_jax.eval import probes
from nvembed_jax.eval.hybrid_system import Hybrid
from nvembed_jax.eval.metrics import unit_rows
from nvembed_jax.eval.scoring import Settings, main_score_of, score_task, tie_order
from nvembed_jax.eval.systems import Dense, LexicalBaseline, passages_of
from nvembed_jax.eval.tasks import load_task
from nvembed_jax.search.hybrid import Bm25, fuse

SYMMETRIC = ("classification", "clustering", "pair_classification", "sts", "summarization")


@pytest.fixture(autouse=True)
def few_texts_to_cluster(monkeypatch):
    monkeypatch.setattr(probes, "CLUSTER_SAMPLE", 256)


@pytest.mark.parametrize("protocol", ["mteb", "quick"])
@pytest.mark.parametrize("type", MADE)
def test_perfect_embeddings_score_one(make_task, type, protocol):
    task = load_task(make_task(type))
    outcome = score_task(task, Dense(FakeModel()), Settings(protocol=protocol))
    assert outcome.scores[task.main_score] == pytest.approx(1)
    assert all(-1 <= score <= 1.000001 for score in outcome.scores.values())


@pytest.mark.parametrize(
    ("type", "low", "high"),
    [
        ("retrieval", 0.05, 0.6),
        ("classification", 0.05, 0.4),
        ("clustering", 0.0, 0.35),
        ("pair_classification", 0.1, 0.45),
        ("sts", -0.35, 0.35),
        ("reranking", 0.2, 0.65),
        ("summarization", -0.7, 0.7),
    ],
)
def test_random_embeddings_score_near_chance(make_task, type, low, high):
    task = load_task(make_task(type))
    score = score_task(task, Dense(RandomModel()), Settings()).scores[task.main_score]
    assert low <= score <= high


@pytest.mark.parametrize("type", MADE)
def test_the_main_score_follows_from_the_examples(make_task, type):
    task = load_task(make_task(type))
    outcome = score_task(task, Dense(RandomModel()), Settings())
    again = main_score_of(type, task.main_score, outcome.examples)
    assert again == pytest.approx(outcome.scores[task.main_score])
    assert len({len(values) for values in outcome.examples.values()}) == 1


@pytest.mark.parametrize("main_score", ["f1", "max_f1", "cosine_pearson"])
def test_other_main_scores_follow_from_the_examples_too(make_task, main_score):
    type = {"f1": "classification", "max_f1": "pair_classification"}.get(main_score, "sts")
    outcome = score_task(load_task(make_task(type)), Dense(RandomModel()), Settings())
    again = main_score_of(type, main_score, outcome.examples)
    assert again == pytest.approx(outcome.scores[main_score])


def test_symmetric_tasks_carry_the_instruction_on_every_text(make_task):
    for type in SYMMETRIC:
        model = FakeModel()
        score_task(load_task(make_task(type)), Dense(model), Settings())
        assert [(method, task) for method, _, task in model.calls] == [("encode", INSTRUCTION)]


def test_queries_carry_the_instruction_and_passages_none(make_task):
    for type in ("retrieval", "reranking"):
        model = FakeModel()
        score_task(load_task(make_task(type)), Dense(model), Settings())
        assert [(method, task) for method, _, task in model.calls] == [
            ("encode_query", INSTRUCTION),
            ("encode_document", None),
        ]


def test_a_model_without_a_template_is_not_given_instructions(make_task):
    model = FakeModel()
    model.config = type("C", (), {"text": type("T", (), {"query_template": None})})
    score_task(load_task(make_task("retrieval")), Dense(model), Settings())
    assert {task for _, _, task in model.calls} == {None}


def test_equal_texts_are_encoded_once(make_task):
    rows = [
        {"text1": "cats 0", "text2": f"{t} 0", "label": int(t == "cats")} for t in ("cats", "wine")
    ]
    model = FakeModel()
    task = load_task(make_task("pair_classification", pairs=rows * 5))
    assert score_task(task, Dense(model), Settings()).scores["cosine_ap"] == 1
    assert [count for _, count, _ in model.calls] == [2]


def test_queries_without_judgements_are_left_out(make_task):
    task = load_task(make_task("retrieval"))
    outcome = score_task(task, Dense(FakeModel()), Settings())
    assert outcome.examples["id"].tolist() == ["q0", "q1", "q2", "q3"]
    assert outcome.left_out == 1
    seed = next(s for s in range(99) if random.Random(s).sample(range(5), 1) == [4])
    with pytest.raises(ValueError, match="none of the 1 queries has judgements"):
        score_task(task, Dense(FakeModel()), Settings(limit=1, seed=seed))


def test_rows_without_positives_or_negatives_are_left_out(make_task):
    rows = reranking_rows()
    rows[0]["positive"], rows[1]["negative"] = [], []
    task = load_task(make_task("reranking", reranking=rows))
    outcome = score_task(task, Dense(FakeModel()), Settings())
    assert outcome.examples["id"].tolist() == list(range(2, 20))
    assert outcome.left_out == 2


def test_spaces_around_candidates_do_not_reach_the_model(make_task):
    seen = []
    model = FakeModel()
    embed = model.encode_document
    model.encode_document = lambda inputs, **kw: seen.extend(inputs) or embed(inputs, **kw)
    rows = reranking_rows()
    rows[0]["positive"] = [f"  {rows[0]['positive'][0]}\n"]
    score_task(load_task(make_task("reranking", reranking=rows)), Dense(model), Settings())
    assert all(text == text.strip() for text in seen)


def test_blocks_of_the_corpus_do_not_change_the_ranking(make_task, monkeypatch):
    task = load_task(make_task("retrieval"))
    for settings in (Settings(), Settings(protocol="quick")):
        for model in (FakeModel, RandomModel):
            whole = score_task(task, Dense(model()), settings)
            monkeypatch.setattr("nvembed_jax.eval.systems.PASSAGE_BLOCK", 7)
            split = score_task(task, Dense(model()), settings)
            monkeypatch.undo()
            for name, values in whole.examples.items():
                np.testing.assert_array_equal(values, split.examples[name])


def test_passages_of_equal_score_go_by_id_or_by_row(make_task):
    """One topic's passages are alike; the judged one is the first row and the lowest id."""
    corpus = [{"_id": f"d{i}", "title": "", "text": f"cats 0 passage {i}"} for i in range(5)]
    qrels = "query-id\tcorpus-id\tscore\nq0\td0\t1\n"
    task = load_task(make_task("retrieval", corpus=corpus, qrels=qrels))
    by_id = score_task(task, Dense(FakeModel()), Settings()).scores
    by_row = score_task(task, Dense(FakeModel()), Settings(protocol="quick")).scores
    assert by_id["mrr_at_10"] == pytest.approx(1 / 5)
    assert by_row["mrr_at_10"] == 1


def test_the_higher_id_comes_first_as_strings_compare():
    assert tie_order(("9", "10", "a", "B"), by_row=False).tolist() == [2, 3, 0, 1]
    assert tie_order(("9", "10"), by_row=True).tolist() == [0, 1]


def test_the_limit_samples_as_the_seed_says(make_task):
    task = load_task(make_task("retrieval"))
    outcome = score_task(task, Dense(FakeModel()), Settings(limit=3, seed=1))
    picked = random.Random(1).sample(range(5), 3)
    assert outcome.examples["id"].tolist() == [f"q{i}" for i in picked if i < 4]
    task = load_task(make_task("classification"))
    outcome = score_task(task, Dense(FakeModel()), Settings(limit=20, seed=2))
    assert outcome.examples["id"].tolist() == random.Random(2).sample(range(60), 20)
    model = FakeModel()
    score_task(load_task(make_task("clustering")), Dense(model), Settings(limit=10))
    assert model.calls[0][1] == 20


def test_the_quick_protocol_draws_after_the_sample_from_one_stream(make_task):
    task, model = load_task(make_task("classification")), FakeModel()
    score_task(task, Dense(model), Settings(protocol="quick", limit=20, samples_per_label=2))
    rng = random.Random(0)
    rng.sample(range(60), 20)
    draws = probes.quick_draws([row["label"] for row in labelled(10, "train")], 2, 5, rng)
    assert model.calls == [("encode", len(np.unique(np.concatenate(draws))) + 20, INSTRUCTION)]


def test_samples_per_label_reach_the_classifier(make_task):
    task, counts = load_task(make_task("classification")), []
    for number in (1, None):
        model = FakeModel()
        score_task(task, Dense(model), Settings(samples_per_label=number))
        counts.append(model.calls[0][1])
    assert counts[0] < counts[1] <= 50 + 60


def test_bm25_ranks_by_words(make_task):
    for type in ("retrieval", "reranking"):
        task = load_task(make_task(type))
        assert score_task(task, LexicalBaseline(), Settings()).scores[task.main_score] > 0.99
    with pytest.raises(ValueError, match="cannot score sts"):
        score_task(load_task(make_task("sts")), LexicalBaseline(), Settings())


def test_hybrid_ranks_by_the_fused_scores(make_task):
    task, model = load_task(make_task("retrieval")), RandomModel()
    data, queries = task.data, ["a word of passage 3", "passage 7"]
    passages = list(passages_of(data))
    order = np.arange(len(passages))[::-1].copy()
    got = Hybrid(model).rank(data, queries, "", 10, order)
    dense = Dense(model)
    vectors = unit_rows(dense.embed_passages(passages))
    index = Bm25.build(passages)
    embedded = unit_rows(dense.embed_queries(queries, ""))
    for query, row, ranked in zip(queries, embedded, got, strict=True):
        scores = fuse(vectors @ row, index.scores(query))
        assert list(ranked) == list(np.lexsort((order, -scores))[:10])


def test_bm25_leaves_out_passages_without_a_word_of_the_query(make_task):
    queries = [{"_id": f"q{i}", "text": "zebra"} for i in range(4)]
    outcome = score_task(
        load_task(make_task("retrieval", queries=queries)), LexicalBaseline(), Settings()
    )
    assert outcome.scores["recall_at_1000"] == 0


def test_bad_embeddings_are_refused(make_task):
    task = load_task(make_task("sts"))
    broken = FakeModel()
    broken.encode = lambda inputs, task=None: np.full((len(inputs), 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="text 0 holds NaN"):
        score_task(task, Dense(broken), Settings())
    broken.encode = lambda inputs, task=None: np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"expected embeddings \[65, D\]"):
        score_task(task, Dense(broken), Settings())


def test_a_collapsed_model_scores_without_a_warning(make_task):
    collapsed = FakeModel()
    collapsed.vector = lambda text: np.ones(4, np.float32)
    for type in MADE:
        task = load_task(make_task(type))
        score = score_task(task, Dense(collapsed), Settings()).scores[task.main_score]
        assert 0 <= score < 0.6
        assert type not in ("sts", "summarization", "clustering") or score == pytest.approx(0)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"protocol": "fast"}, "mteb, quick; got 'fast'"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"samples_per_label": 0}, "samples_per_label must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, part):
    with pytest.raises(ValueError, match=part):
        Settings(**wrong)
