from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import loss_reference as reference
import numpy as np
import pytest
import torch

from nvembed_jax.train import losses
from nvembed_jax.train.losses import LossConfig

T = 0.05


def on_device(*values):
    """NumPy trees as JAX arrays."""
    return jax.tree.map(jnp.asarray, values)


def compared(config: LossConfig, batch, width: int = 16, seed: int = 0, **options):
    """(ours, reference): each (loss, gradient of queries, gradient of passages)."""
    rng = np.random.default_rng(seed)
    rows, per_row = batch.passage_mask.shape
    q, p = reference.unit_rows(rng, rows, width), reference.unit_rows(rng, rows * per_row, width)
    run = jax.jit(
        jax.value_and_grad(lambda a, b: losses.info_nce(config, a, b, *on_device(batch)), (0, 1))
    )
    value, grads = run(*on_device(q, p))
    tq, tp = (torch.tensor(x, requires_grad=True) for x in (q, p))
    expected = reference.info_nce(tq, tp, batch, temperature=config.temperature, **options)
    expected.backward()
    theirs = (expected.detach(), tq.grad, tp.grad)
    return (value, *grads), tuple(x.numpy() for x in theirs)


def assert_close(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"in_batch_scope": "source"}, {"scope": "source"}),
        ({"false_negative_margin": 0.1}, {"margin": 0.1}),
        ({"false_negative_margin": -0.2}, {"margin": -0.2}),
        ({"in_batch": False}, {"in_batch": False}),
        ({"in_batch": False, "false_negative_margin": 0.0}, {"in_batch": False, "margin": 0.0}),
    ],
)
def test_info_nce_equals_loops_with_7_negatives_and_mixed_in_batch(settings, options, seed):
    batch = reference.make_batch(np.random.default_rng(seed), 12, 8)
    assert 0 < batch.in_batch.sum() < 12
    assert_close(*compared(LossConfig(temperature=T, **settings), batch, seed=seed, **options))


def test_masks_of_a_small_batch_read_by_eye():
    batch = reference.make_batch(
        np.random.default_rng(0), 4, 2,
        query_ids=np.asarray([1, 2, 3, 1], np.int32),
        passage_ids=np.asarray([[10, 11], [20, 10], [30, 3], [40, 41]], np.int32),
        known_ids=np.asarray([[10, 0], [20, 41], [30, 0], [40, 0]], np.int32),
        group_ids=np.asarray([-1, 7, 7, -1], np.int32),
        passage_mask=np.asarray([[1, 1], [1, 1], [1, 1], [1, 0]], bool),
        in_batch=np.asarray([True, True, True, False]),
    )  # fmt: skip
    expected = [
        # 10 11  20 10  30  3  40 --
        [0, 1, 1, 0, 1, 1, 0, 0],  # 10 is its positive wherever it stands; row 3: the same query
        [1, 1, 0, 1, 0, 1, 1, 0],  # row 2: the same group; its own hard negative stays
        [1, 1, 0, 1, 0, 1, 1, 0],  # row 1: the same group; its own hard negative 3 is query 3
        [0, 0, 0, 0, 0, 0, 0, 0],  # not in-batch, and no negative of its own
    ]
    got = losses.in_batch_negatives(LossConfig(), *on_device(batch))
    np.testing.assert_array_equal(np.asarray(got, int), expected)


def test_without_negatives_the_loss_is_zero():
    batch = reference.make_batch(np.random.default_rng(0), 4, 1, in_batch=np.zeros(4, bool))
    (loss, dq, _), _ = compared(LossConfig(temperature=T), batch)
    assert float(loss) == 0
    assert not np.any(dq)


def test_symmetric_is_the_mean_of_both_directions():
    rng = np.random.default_rng(1)
    batch = reference.make_batch(
        rng, 6, 1, in_batch=np.ones(6, bool), group_ids=np.full(6, -1, np.int32),
        query_ids=np.arange(100, 106, dtype=np.int32), weight=np.ones(6, np.float32),
        passage_ids=np.arange(1, 7, dtype=np.int32)[:, None], passage_mask=np.ones((6, 1), bool),
        known_ids=np.arange(1, 7, dtype=np.int32)[:, None],
    )  # fmt: skip
    q, p = reference.unit_rows(rng, 6, 8), reference.unit_rows(rng, 6, 8)
    got = losses.info_nce(LossConfig(temperature=T, symmetric=True), *on_device(q, p, batch))
    logits = torch.tensor(q @ p.T / T)
    target = torch.arange(6)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_gte_sums_four_blocks_in_one_denominator():
    rng = np.random.default_rng(2)
    batch = reference.make_batch(
        rng, 5, 1, in_batch=np.ones(5, bool), group_ids=np.full(5, -1, np.int32),
        query_ids=np.arange(100, 105, dtype=np.int32), weight=np.ones(5, np.float32),
        passage_ids=np.arange(1, 6, dtype=np.int32)[:, None], passage_mask=np.ones((5, 1), bool),
        known_ids=np.arange(1, 6, dtype=np.int32)[:, None],
    )  # fmt: skip
    q, p = (reference.unit_rows(rng, 5, 8).astype(np.float64) for _ in range(2))
    got = losses.info_nce(
        LossConfig(temperature=T, gte=True),
        *on_device(q.astype(np.float32), p.astype(np.float32), batch),
    )
    rows = []
    for i in range(5):
        others = [j for j in range(5) if j != i]
        z = sum(np.exp(q[i] @ p[j] / T) for j in range(5))
        z += sum(np.exp(q[j] @ p[i] / T) + np.exp(q[i] @ q[j] / T) for j in others)
        z += sum(np.exp(p[i] @ p[j] / T) for j in others)
        rows.append(np.log(z) - q[i] @ p[i] / T)
    np.testing.assert_allclose(got, np.mean(rows), rtol=1e-5)


def test_matryoshka_is_the_weighted_mean_over_renormalised_widths():
    rng = np.random.default_rng(3)
    batch = reference.make_batch(rng, 6, 3)
    q, p = reference.unit_rows(rng, 6, 16), reference.unit_rows(rng, 18, 16)
    plain = LossConfig(temperature=T)
    config = dataclasses.replace(plain, matryoshka_dims=(4, 16), matryoshka_weights=(3.0, 1.0))
    got, _ = losses.total_loss(config, *on_device(q, p, batch))

    def cut(x):
        return x[:, :4] / np.linalg.norm(x[:, :4], axis=1, keepdims=True)

    parts = [
        losses.info_nce(plain, *on_device(*pair, batch)) for pair in ((cut(q), cut(p)), (q, p))
    ]
    np.testing.assert_allclose(got, (3 * parts[0] + parts[1]) / 4, rtol=1e-6)


def test_distillation_parts_equal_their_definitions():
    rng = np.random.default_rng(4)
    batch = reference.make_batch(rng, 5, 3)
    q, p = reference.unit_rows(rng, 5, 8), reference.unit_rows(rng, 15, 8)
    tq, tp = reference.unit_rows(rng, 5, 8), reference.unit_rows(rng, 15, 8)
    taught = batch.replace(teacher_queries=tq, teacher_passages=tp)
    config = LossConfig(
        contrastive=0.0, distill_cosine=1.0, distill_similarity=10.0, distill_scores=0.5,
        temperature=T, teacher_temperature=0.1,
    )  # fmt: skip
    total, metrics = losses.total_loss(config, *on_device(q, p, taught))
    present = np.concatenate([np.ones(5), batch.passage_mask.reshape(-1)])
    cosine = np.concatenate([(q * tq).sum(1), (p * tp).sum(1)])
    np.testing.assert_allclose(
        metrics["distill_cosine"], ((1 - cosine) * present).sum() / present.sum(), rtol=1e-5
    )
    errors = [((a @ a.T - b @ b.T) ** 2).mean(1) for a, b in ((q, tq), (p, tp))]
    np.testing.assert_allclose(
        metrics["distill_similarity"],
        (np.concatenate(errors) * present).sum() / present.sum(),
        rtol=1e-5,
    )
    keep = np.asarray(losses.own_candidates(*on_device(batch)))
    own = [np.einsum("bd,bpd->bp", a, b.reshape(5, 3, 8)) for a, b in ((q, p), (tq, tp))]
    rows = [reference.kl(own[1][i] / 0.1, own[0][i] / T, keep[i]) for i in range(5)]
    expected = (np.asarray(rows) * batch.weight).sum() / batch.weight.sum()
    np.testing.assert_allclose(metrics["distill_scores"], expected, rtol=1e-4)
    weights = {"distill_cosine": 1.0, "distill_similarity": 10.0, "distill_scores": 0.5}
    np.testing.assert_allclose(total, sum(w * metrics[k] for k, w in weights.items()), rtol=1e-6)


def test_distillation_goes_over_the_matryoshka_widths_but_for_the_cosine():
    rng = np.random.default_rng(5)
    batch = reference.make_batch(rng, 5, 3)
    q, p = reference.unit_rows(rng, 5, 8), reference.unit_rows(rng, 15, 8)
    teacher = {"teacher_queries": q[::-1].copy(), "teacher_passages": p[::-1].copy()}
    plain = LossConfig(contrastive=0.0, distill_cosine=1.0, distill_similarity=1.0,
                       distill_scores=1.0, temperature=T)  # fmt: skip
    config = dataclasses.replace(plain, matryoshka_dims=(4, 8), matryoshka_weights=(3.0, 1.0))

    def metrics(config, *student):
        return losses.total_loss(config, *on_device(*student, batch.replace(**teacher)))[1]

    got, whole = metrics(config, q, p), metrics(plain, q, p)
    uncompared = dataclasses.replace(plain, distill_cosine=0.0)
    cut = metrics(
        uncompared, *(x[:, :4] / np.linalg.norm(x[:, :4], axis=1)[:, None] for x in (q, p))
    )
    np.testing.assert_allclose(got["distill_cosine"], whole["distill_cosine"], rtol=1e-6)
    for name in ("distill_similarity", "distill_scores"):
        assert abs(float(cut[name] - whole[name])) > 1e-3
        np.testing.assert_allclose(got[name], (3 * cut[name] + whole[name]) / 4, rtol=1e-5)


def test_accuracy_counts_queries_whose_positive_is_best():
    eye = jnp.eye(2)
    passages = jnp.stack([eye[0], eye[1], eye[0], eye[1]])  # P N, P N
    batch = reference.make_batch(
        np.random.default_rng(0), 2, 2, passage_mask=np.ones((2, 2), bool),
        passage_ids=np.asarray([[1, 2], [3, 4]], np.int32), weight=np.ones(2, np.float32),
        known_ids=np.asarray([[1], [3]], np.int32),
    )  # fmt: skip
    metrics = losses.ranking_metrics(*on_device(eye, passages, batch))
    assert float(metrics["accuracy"]) == 0.5
    assert float(metrics["positive_score"]) == 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"in_batch_scope": "batch"}, "in_batch_scope"),
        ({"symmetric": True, "in_batch": False}, "need in_batch"),
        ({"contrastive": 0.0}, "nothing would be trained"),
        ({"matryoshka_dims": (4,), "matryoshka_weights": (1.0, 2.0)}, "give one each"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        LossConfig(**settings)


def test_missing_teacher_is_named():
    rng = np.random.default_rng(0)
    batch = reference.make_batch(rng, 4, 2)
    q, p = reference.unit_rows(rng, 4, 8), reference.unit_rows(rng, 8, 8)
    with pytest.raises(ValueError, match="name a teacher"):
        losses.total_loss(LossConfig(distill_cosine=1.0), *on_device(q, p, batch))
    with pytest.raises(ValueError, match="negative_scores"):
        losses.total_loss(LossConfig(distill_scores=1.0), *on_device(q, p, batch))
    narrow = batch.replace(teacher_queries=q[:, :4], teacher_passages=p[:, :4])
    with pytest.raises(ValueError, match="4 wide"):
        losses.total_loss(LossConfig(distill_cosine=1.0), *on_device(q, p, narrow))
