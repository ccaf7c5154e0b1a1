"""What is fitted on embeddings to score them: logistic regression and mini-batch k-means.

Draws of training examples and of texts to cluster follow MTEB, number for number at its seed 42;
`quick_...` are those of a shorter protocol with fewer draws.
"""

from __future__ import annotations

import random
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

CLUSTER_BATCH = 512
CLUSTER_SAMPLE = 16384
LOGISTIC_STEPS = 100


class Predictions(NamedTuple):
    """Labels of the test texts as numbers: the true ones, and what each draw's classifier said."""

    gold: Int[np.ndarray, " M"]
    predicted: Int[np.ndarray, "M R"]


def few_shot_draws(
    labels: Sequence[str], per_label: int, draws: int, seed: int
) -> list[Int[np.ndarray, " n"]]:
    """Rows to train on: at most `per_label` a class, from one shuffle after another."""
    order, chosen = list(range(len(labels))), []
    for _ in range(draws):
        # The same state shuffles what the last draw left, so every draw is another one.
        np.random.RandomState(seed).shuffle(order)
        count: defaultdict[str, int] = defaultdict(int)
        rows = []
        for i in order:
            if count[labels[i]] < per_label:
                count[labels[i]] += 1
                rows.append(i)
        chosen.append(np.array(rows))
    return chosen


def quick_draws(
    labels: Sequence[str], per_label: int, draws: int, rng: random.Random
) -> list[Int[np.ndarray, " n"]]:
    """Rows to train on: `per_label` random ones a class (all of a smaller class)."""
    by_label: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        by_label.setdefault(label, []).append(i)
    return [
        np.concatenate(
            [rng.sample(rows, min(per_label, len(rows))) for rows in by_label.values()]
        ).astype(int)
        for _ in range(draws)
    ]


def classify(
    train: Float[np.ndarray, "N D"],
    train_labels: Sequence[str],
    test: Float[np.ndarray, "M D"],
    test_labels: Sequence[str],
    draws: Sequence[Int[np.ndarray, " n"]],
    seed: int,
) -> Predictions:
    """Logistic regression of at most 100 steps on each draw of the training rows."""
    from sklearn.linear_model import LogisticRegression

    names, codes = np.unique([*train_labels, *test_labels], return_inverse=True)
    labels, gold = codes[: len(train_labels)], codes[len(train_labels) :]
    predicted = np.empty((len(gold), len(draws)), np.min_scalar_type(-len(names)))
    for column, rows in enumerate(draws):
        with _ignored_convergence():
            classifier = LogisticRegression(max_iter=LOGISTIC_STEPS, random_state=seed)
            predicted[:, column] = classifier.fit(train[rows], labels[rows]).predict(test)
    return Predictions(gold, predicted)


def classification_scores(
    gold: Int[np.ndarray, " M"], predicted: Int[np.ndarray, "M R"]
) -> dict[str, float]:
    """Accuracy and F1 (the unweighted mean over classes), each the mean over the R draws."""
    return {
        "accuracy": mean_accuracy(gold, predicted),
        "f1": float(np.mean([macro_f1(gold, column) for column in predicted.T])),
    }


def mean_accuracy(gold: Int[np.ndarray, " M"], predicted: Int[np.ndarray, "M R"]) -> float:
    """Share of right predictions, over all texts and draws."""
    return float(np.mean(predicted == gold[:, None]))


def macro_f1(gold: Int[np.ndarray, " M"], predicted: Int[np.ndarray, " M"]) -> float:
    """The unweighted mean over classes of F1; classes are those that were meant or predicted."""
    names, codes = np.unique(np.concatenate([gold, predicted]), return_inverse=True)
    meant, said = codes[: len(gold)], codes[len(gold) :]
    size = len(names)
    hits = np.bincount(meant[meant == said], minlength=size)
    total = np.bincount(meant, minlength=size) + np.bincount(said, minlength=size)
    return float(np.mean(2 * hits / total))


def cluster_draws(
    embeddings: Float[np.ndarray, "N D"], labels: Sequence[str], draws: int, seed: int
) -> Float[np.ndarray, " R"]:
    """V-measures of k-means, k the number of labels, on `draws` samples of 16,384 texts.

    Samples are drawn with replacement, so small sets are clustered as bootstraps of themselves.
    """
    rng, codes = random.Random(seed), _codes(labels)
    scores = []
    for _ in range(draws):
        rows = np.array(rng.choices(range(len(codes)), k=CLUSTER_SAMPLE))
        scores.append(_v_measure(embeddings[rows], codes[rows], int(codes.max()) + 1, seed, 1))
    return np.array(scores)


def cluster_whole(
    embeddings: Float[np.ndarray, "N D"], labels: Sequence[str], draws: int
) -> Float[np.ndarray, " R"]:
    """V-measures of k-means on all texts, the best of three starts, with the seeds 0, 1, ..."""
    codes = _codes(labels)
    return np.array(
        [_v_measure(embeddings, codes, int(codes.max()) + 1, seed, 3) for seed in range(draws)]
    )


def _codes(labels: Sequence[str]) -> Int[np.ndarray, " N"]:
    return np.unique(np.array(labels), return_inverse=True)[1]


def _v_measure(
    embeddings: np.ndarray, codes: np.ndarray, clusters: int, seed: int, starts: int
) -> float:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    means = MiniBatchKMeans(
        clusters,
        batch_size=CLUSTER_BATCH,
        n_init=starts,  # pyright: ignore[reportArgumentType]  (its type is read from "auto")
        random_state=seed,
    )
    with _ignored_convergence():
        return float(v_measure_score(codes, means.fit_predict(embeddings)))


@contextmanager
def _ignored_convergence() -> Iterator[None]:
    """The number of steps is part of the definition: stopping there is no news."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
