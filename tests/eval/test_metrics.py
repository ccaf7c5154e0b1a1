"""Metrics against numbers worked out by hand, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from nvembed_jax.eval.metrics import (
    binary_scores,
    pair_scores,
    pair_similarities,
    pearson,
    ranking_scores,
    reranking_scores,
    retrieval_scores,
    spearman,
    sts_scores,
    summary_scores,
)


def test_a_ranking_is_scored_as_by_hand():
    scores = ranking_scores(["a", "x", "b", "y"], {"a": 1, "b": 3, "c": 2, "y": 0}, cuts=(1, 3, 10))
    log2 = np.log2
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    expected = {
        "ndcg_at_1": 1 / 3,
        "ndcg_at_3": (1 / log2(2) + 3 / log2(4)) / ideal,
        "ndcg_at_10": (1 / log2(2) + 3 / log2(4)) / ideal,
        "map_at_1": 1 / 3,
        "map_at_3": (1 + 2 / 3) / 3,
        "map_at_10": (1 + 2 / 3) / 3,
        "mrr_at_1": 1,
        "mrr_at_3": 1,
        "mrr_at_10": 1,
        "recall_at_1": 1 / 3,
        "recall_at_3": 2 / 3,
        "recall_at_10": 2 / 3,
        "precision_at_1": 1,
        "precision_at_3": 2 / 3,
        "precision_at_10": 2 / 10,
    }
    assert scores == pytest.approx(expected)


def test_the_first_hit_counts_for_mrr_only_within_the_cut():
    scores = ranking_scores(["x", "y", "a"], {"a": 1}, cuts=(1, 3))
    assert (scores["mrr_at_1"], scores["mrr_at_3"]) == (0, pytest.approx(1 / 3))
    nothing = ranking_scores([], {"a": 1}, cuts=(3,))
    assert set(nothing.values()) == {0}


def test_queries_without_relevant_passages_count_as_zero():
    per_query = retrieval_scores([["a"], ["a"]], [{"a": 0, "b": -1}, {"a": 1}], cuts=(10,))
    assert per_query["ndcg_at_10"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="query 1 has no judgements"):
        retrieval_scores([["a"], ["a"]], [{"a": 1}, {}])
    with pytest.raises(ValueError, match="at least one"):
        retrieval_scores([], [])


def brute_force(ranked: list[str], grades: dict[str, int], k: int) -> dict[str, float]:
    """The textbook's sums, one term at a time."""
    relevant = {name for name, grade in grades.items() if grade > 0}
    gain = [max(0, grades.get(name, 0)) for name in ranked[:k]]
    best = sorted(grades.values(), reverse=True)[:k]
    dcg, ideal = (sum(g / np.log2(i + 2) for i, g in enumerate(part)) for part in (gain, best))
    hits, total, first = 0, 0.0, 0.0
    for rank, name in enumerate(ranked[:k], start=1):
        if name in relevant:
            hits += 1
            total += hits / rank
            first = first or 1 / rank
    return {
        f"ndcg_at_{k}": dcg / ideal,
        f"map_at_{k}": total / len(relevant),
        f"mrr_at_{k}": first,
        f"recall_at_{k}": hits / len(relevant),
        f"precision_at_{k}": hits / k,
    }


def test_rankings_agree_with_plain_loops():
    rng = np.random.default_rng(0)
    names = [f"d{i}" for i in range(30)]
    for _ in range(20):
        ranked = list(rng.permutation(names)[: rng.integers(1, 30)])
        grades = {name: int(rng.integers(0, 4)) for name in rng.permutation(names)[:12]} | {"z": 1}
        for k in (1, 5, 20):
            assert ranking_scores(ranked, grades, cuts=(k,)) == pytest.approx(
                brute_force(ranked, grades, k)
            )


def test_candidates_are_scored_as_by_hand():
    scores = reranking_scores(np.array([0.1, 0.9, 0.5]), np.array([True, False, True]))
    expected_dcg = 1 / np.log2(3) + 1 / np.log2(4)
    assert scores == pytest.approx(
        {
            "map": (1 / 2 + 2 / 3) / 2,
            "mrr": 1 / 2,
            "ndcg_at_10": expected_dcg / (1 + 1 / np.log2(3)),
        }
    )
    with pytest.raises(ValueError, match="no candidate is relevant"):
        reranking_scores(np.array([1.0]), np.array([False]))


def test_equal_scores_go_against_the_model_unless_told_otherwise():
    scores, relevant = np.zeros(4), np.array([True, True, False, False])
    assert reranking_scores(scores, relevant)["map"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert reranking_scores(scores, relevant, relevant_first=True)["map"] == 1


def test_reranking_is_average_precision_where_no_scores_are_equal():
    rng = np.random.default_rng(1)
    for _ in range(10):
        scores, relevant = rng.normal(size=15), rng.random(15) < 0.4
        relevant[0] = True
        expected = average_precision_score(relevant, scores)
        assert reranking_scores(scores, relevant)["map"] == pytest.approx(expected)


def test_similarities_of_pairs_are_as_by_hand():
    first, second = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 2.0]])
    similarities = pair_similarities(first, second)
    expected = {
        "cosine": [1, 0],
        "dot": [25, 0],
        "euclidean": [0, -np.sqrt(5)],
        "manhattan": [0, -3],
    }
    assert similarities.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(similarities[name], values, atol=1e-6)


def test_blocks_of_pairs_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 10, 3))
    whole = pair_similarities(a, b)
    monkeypatch.setattr("nvembed_jax.eval.metrics._PAIR_BLOCK", 3)
    for name, values in pair_similarities(a, b).items():
        np.testing.assert_array_equal(values, whole[name])


def test_the_best_threshold_lies_between_two_scores():
    similarity = np.array([0.9, 0.8, 0.7, 0.2])
    scores = binary_scores(similarity, np.array([1, 0, 1, 0]))
    assert scores["accuracy"] == 3 / 4
    assert scores["f1"] == pytest.approx(0.8)
    assert (scores["precision"], scores["recall"]) == (pytest.approx(2 / 3), 1)
    assert scores["ap"] == pytest.approx((1 + 2 / 3) / 2)
    equal = binary_scores(np.full(4, 0.5), np.array([1, 0, 1, 0]))
    assert equal == {"ap": 0.5, "accuracy": 0, "f1": 0, "precision": 0, "recall": 0}


def test_thresholds_agree_with_a_search_over_all_of_them():
    rng = np.random.default_rng(3)
    for _ in range(10):
        similarity = np.round(rng.random(25), 1)  # with equal scores
        labels = (rng.random(25) < 0.4).astype(int)
        labels[:2] = 0, 1
        values = np.unique(similarity)
        cuts = [similarity >= t for t in (values[1:] + values[:-1]) / 2]
        scores = binary_scores(similarity, labels)
        assert scores["accuracy"] == pytest.approx(max(accuracy_score(labels, c) for c in cuts))
        assert scores["f1"] == pytest.approx(max(f1_score(labels, c) for c in cuts))
        assert scores["ap"] == pytest.approx(average_precision_score(labels, similarity))


def test_pair_scores_name_every_similarity_and_the_best():
    similarities = {"cosine": np.array([0.0, 1.0]), "dot": np.array([1.0, 0.0])}
    scores = pair_scores(similarities, np.array([0, 1]))
    assert (scores["cosine_ap"], scores["dot_ap"], scores["max_ap"]) == (1, 0.5, 1)
    with pytest.raises(ValueError, match="labels 0 and 1"):
        pair_scores(similarities, np.array([1, 1]))


def test_correlations_are_those_of_scipy_and_zero_without_spread():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 40))
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert pearson(x, y) == pytest.approx(pearsonr(x, y).statistic)
    assert spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert pearson([0, 1], [5, 3]) == pytest.approx(-1)
    assert (spearman(np.ones(4), y[:4]), pearson(x[:4], np.ones(4))) == (0, 0)


def test_sts_correlates_every_similarity():
    gold = np.array([1.0, 2.0, 3.0])
    values = {"cosine": gold, "dot": gold, "euclidean": -gold, "manhattan": gold**2}
    scores = sts_scores(values, gold)
    assert scores["cosine_spearman"] == pytest.approx(1)
    assert scores["euclidean_pearson"] == pytest.approx(-1)
    assert scores["manhattan_spearman"] == pytest.approx(1)
    assert scores["manhattan_pearson"] == pytest.approx(pearsonr(gold**2, gold).statistic)


def test_summaries_count_by_their_best_human_one():
    cosines = np.array([[0.9, 0.0], [0.5, 0.5], [0.1, 0.8]])
    scores = summary_scores(cosines, np.array([3.0, 1.0, 2.0]))
    assert scores["cosine_spearman"] == pytest.approx(1)
    assert scores["mean_cosine_spearman"] == pytest.approx(
        spearmanr([0.45, 0.5, 0.45], [3, 1, 2]).statistic
    )
    assert kendalltau([0.9, 0.5, 0.8], [3, 1, 2]).statistic == pytest.approx(1)


@pytest.mark.parametrize(
    ("cosines", "relevance"),
    [(np.array([[0.1], [0.2]]), np.ones(2)), (np.full((2, 1), 0.5), np.array([1.0, 2.0]))],
)
def test_summaries_without_an_order_are_left_out(cosines, relevance):
    assert all(np.isnan(value) for value in summary_scores(cosines, relevance).values())
