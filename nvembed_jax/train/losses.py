"""Contrastive and distillation losses: embeddings and a batch's ids in, a scalar out (paper,
section 3; pure functions).

A query's own passages stand together, its positive first: P N..N P N..N. Under `jit` with a sharded
batch the scores are of the global batch: in-batch negatives span all devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nvembed_jax.batch import ContrastiveBatch
from nvembed_jax.model import l2_normalize

MASKED = -1e30  # the logit of what is no candidate; finite, so that no gradient is NaN
SCOPES = ("all", "source")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised.

    Attributes:
        temperature: of the cosines; 0.02 is our choice, the paper does not give its own.
        in_batch: whether rows of the batch may use passages of other examples as negatives at all
            (each row says whether it does); False never forms the matrix of all scores.
        in_batch_scope: "all": of the whole batch; "source": of examples of the same dataset.
        false_negative_margin: candidates that score more than this above the positive are dropped
            (no gradient through the choice); None: none are.
        symmetric: also from each positive to all queries; the mean of both directions.
        gte: all four blocks (query-passage, query-query, passage-query, passage-passage) in one
            denominator (GTE, arXiv 2308.03281).
        matryoshka_dims: the loss is the mean over these leading widths, renormalised, weighted by
            `matryoshka_weights` (default: equal); () is the full width only. All parts but
            `distill_cosine`, which compares whole embeddings.
        contrastive, distill_cosine, distill_similarity, distill_scores: weights of the parts:
            InfoNCE; 1 - cosine to the teacher's embedding; squared error of the pairwise
            similarities within the batch; KL divergence to the teacher's scores of a query's own
            passages.
        teacher_temperature: of the teacher's scores in the KL.
    """

    temperature: float = 0.02
    in_batch: bool = True
    in_batch_scope: str = "all"
    false_negative_margin: float | None = None
    symmetric: bool = False
    gte: bool = False
    matryoshka_dims: tuple[int, ...] = ()
    matryoshka_weights: tuple[float, ...] = ()
    contrastive: float = 1.0
    distill_cosine: float = 0.0
    distill_similarity: float = 0.0
    distill_scores: float = 0.0
    teacher_temperature: float = 0.02

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.teacher_temperature <= 0:
            raise ValueError("temperatures must be positive")
        if self.in_batch_scope not in SCOPES:
            raise ValueError(
                f"in_batch_scope must be one of {', '.join(SCOPES)}; got {self.in_batch_scope!r}"
            )
        if (self.symmetric or self.gte) and not self.in_batch:
            raise ValueError("symmetric and gte compare with other examples: they need in_batch")
        if self.symmetric and self.gte:
            raise ValueError("gte holds both directions already; give symmetric or gte, not both")
        if self.matryoshka_weights and len(self.matryoshka_weights) != len(self.matryoshka_dims):
            raise ValueError(
                f"{len(self.matryoshka_weights)} matryoshka_weights for "
                f"{len(self.matryoshka_dims)} matryoshka_dims; give one each"
            )
        if not (self.contrastive or self.distills):
            raise ValueError("every part of the loss has weight 0; nothing would be trained")

    @property
    def distills(self) -> bool:
        """Whether a teacher's embeddings or scores are needed."""
        return bool(self.distill_cosine or self.distill_similarity or self.distill_scores)


def total_loss(
    config: LossConfig,
    queries: Float[Array, "B D"],
    passages: Float[Array, "M D"],
    batch: ContrastiveBatch,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of all parts, and what is worth watching.

    Args:
        queries, passages: unit vectors; M = B * P.

    Returns:
        (loss, {"accuracy": share of queries whose positive beats their own negatives,
        "positive_score": its mean cosine, "idle": share of rows without any negative, which teach
        nothing, and each distillation part by its name}).
    """
    total, metrics = jnp.float32(0), ranking_metrics(queries, passages, batch)
    if config.contrastive:

        def contrastive(queries: Any, passages: Any) -> Any:
            return info_nce(config, queries, passages, batch)

        total += config.contrastive * _over_widths(config, contrastive, queries, passages)
        alone = ~jnp.any(own_negatives(batch), axis=-1)
        if config.in_batch:
            alone &= ~batch.in_batch
        metrics["idle"] = jnp.mean(alone.astype(jnp.float32))
    for name, part in _distillation(config, queries, passages, batch).items():
        metrics[name] = part
        total += getattr(config, name) * part
    return total, metrics


def info_nce(
    config: LossConfig,
    queries: Float[Array, "B D"],
    passages: Float[Array, "M D"],
    batch: ContrastiveBatch,
) -> Float[Array, ""]:
    """Cross entropy of the positive among the candidates, cosines over temperature; the weighted
    mean over the batch.
    """
    positive = positive_scores(queries, passages)
    own = positive[:, None] / config.temperature
    if not config.in_batch:
        negatives = own_negatives(batch)
        logits = _masked(config, own_scores(queries, passages), positive, negatives)
        return _mean(batch, _log_sum(own, logits) - own[:, 0])
    negatives = in_batch_negatives(config, batch)
    num_passages = batch.passage_mask.shape[1]
    scores = _products(queries, passages)
    forward = _masked(config, scores, positive, negatives)
    if not (config.gte or config.symmetric):
        return _mean(batch, _log_sum(own, forward) - own[:, 0])
    # Row i: every query j against the positive of i.
    unlike = negatives[:, ::num_passages].T & batch.in_batch[:, None]
    backward = _masked(config, scores[:, ::num_passages].T, positive, unlike)
    if config.symmetric:
        both = (_log_sum(own, forward) + _log_sum(own, backward)) / 2
        return _mean(batch, both - own[:, 0])
    positives, others = passages[::num_passages], unlike_examples(config, batch)
    blocks = [
        _masked(config, _products(side, side), positive, others) for side in (queries, positives)
    ]
    return _mean(batch, _log_sum(own, forward, backward, *blocks) - own[:, 0])


def positive_scores(
    queries: Float[Array, "B D"], passages: Float[Array, "M D"]
) -> Float[Array, " B"]:
    """Cosine of every query with its own positive, as a sum: nothing crosses devices."""
    return jnp.sum(queries * passages[:: len(passages) // len(queries)], axis=-1)


def own_scores(queries: Float[Array, "B D"], passages: Float[Array, "M D"]) -> Float[Array, "B P"]:
    """Cosines of every query with its own passages."""
    own = passages.reshape(len(queries), -1, passages.shape[-1])
    return jnp.sum(queries[:, None] * own, axis=-1)


def own_negatives(batch: ContrastiveBatch) -> Bool[Array, "B P"]:
    """Which of a query's own passages are negatives: all but the positive and texts that are known
    positives too.
    """
    known = jnp.any(batch.passage_ids[:, :, None] == batch.known_ids[:, None, :], axis=-1)
    return (batch.passage_mask & ~known).at[:, 0].set(False)


def own_candidates(batch: ContrastiveBatch) -> Bool[Array, "B P"]:
    """The positive and `own_negatives`."""
    return own_negatives(batch).at[:, 0].set(True)


def in_batch_negatives(config: LossConfig, batch: ContrastiveBatch) -> Bool[Array, "B M"]:
    """Which passages of the batch are negatives of which query.

    Own ones as in `own_negatives`. Those of others only where the row says so (`in_batch`), and
    never a text that is a known positive of the query or the query itself, nor the positive of an
    example with the same query text or of the same group.
    """
    rows, num_passages = batch.passage_mask.shape
    ids = batch.passage_ids.reshape(-1)
    blocked = ids == batch.query_ids[:, None]
    for k in range(batch.known_ids.shape[1]):  # K is small; [B, M, K] would not be
        blocked |= ids == batch.known_ids[:, k, None]
    is_positive = jnp.tile(jnp.arange(num_passages) == 0, rows)
    blocked |= jnp.repeat(_related(batch), num_passages, axis=1) & is_positive
    allowed = batch.in_batch[:, None] & batch.passage_mask.reshape(-1) & ~blocked
    if config.in_batch_scope == "source":
        allowed &= jnp.repeat(_same(batch.source_ids), num_passages, axis=1)
    owner = jnp.repeat(jnp.arange(rows), num_passages) == jnp.arange(rows)[:, None]
    return jnp.where(owner, jnp.tile(own_negatives(batch), (1, rows)), allowed)


def unlike_examples(config: LossConfig, batch: ContrastiveBatch) -> Bool[Array, "B B"]:
    """Pairs of different examples that count as unlike: the query-query and passage-passage blocks
    of GTE.
    """
    positives = batch.passage_ids[:, 0]
    known = jnp.any(positives[None, :, None] == batch.known_ids[:, None, :], axis=-1)
    allowed = batch.in_batch[:, None] & ~_related(batch) & ~known & ~known.T
    if config.in_batch_scope == "source":
        allowed &= _same(batch.source_ids)
    return allowed & ~jnp.eye(len(positives), dtype=bool)


def ranking_metrics(
    queries: Float[Array, "B D"], passages: Float[Array, "M D"], batch: ContrastiveBatch
) -> dict[str, Float[Array, ""]]:
    """Share of queries whose positive beats their own negatives, and its mean cosine."""
    scores = jax.lax.stop_gradient(own_scores(queries, passages))
    best = jnp.max(jnp.where(own_negatives(batch), scores, MASKED), axis=-1)
    return {
        "accuracy": _mean(batch, (scores[:, 0] > best).astype(jnp.float32)),
        "positive_score": _mean(batch, scores[:, 0]),
    }


def distill_cosine(
    student: Float[Array, "B D"], teacher: Float[Array, "B E"]
) -> Float[Array, " B"]:
    """1 - cosine to the teacher's embedding; a wider teacher is cut to the student's width."""
    if teacher.shape[-1] < student.shape[-1]:
        raise ValueError(
            f"the teacher is {teacher.shape[-1]} wide, the student {student.shape[-1]}: embeddings "
            "cannot be compared; use distill_similarity, or a student projection of that width"
        )
    return 1 - jnp.sum(student * _leading(teacher, student.shape[-1]), axis=-1)


def distill_similarity(
    student: Float[Array, "B D"], teacher: Float[Array, "B E"]
) -> Float[Array, " B"]:
    """Squared error of the cosines with all others of the batch, a mean a row."""
    difference = _products(student, student) - _products(teacher, teacher)
    return jnp.mean(difference**2, axis=-1)


def distill_scores(
    config: LossConfig,
    scores: Float[Array, "B P"],
    teacher: Float[Array, "B P"],
    candidates: Bool[Array, "B P"],
) -> Float[Array, " B"]:
    """KL(teacher || student) over a query's own passages."""
    target = jnp.where(candidates, teacher / config.teacher_temperature, MASKED)
    logits = jnp.where(candidates, scores / config.temperature, MASKED)
    log_p, log_q = jax.nn.log_softmax(target), jax.nn.log_softmax(logits)
    return jnp.sum(jnp.where(candidates, jnp.exp(log_p) * (log_p - log_q), 0.0), axis=-1)


def _distillation(
    config: LossConfig, queries: Any, passages: Any, batch: ContrastiveBatch
) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    embedded = (batch.teacher_queries, batch.teacher_passages)
    if config.distill_cosine or config.distill_similarity:
        if any(teacher is None for teacher in embedded):
            raise ValueError("this loss compares with a teacher's embeddings; name a teacher model")
        present = (jnp.ones(len(queries)), batch.passage_mask.reshape(-1).astype(jnp.float32))

        def compared(part: Callable[[Any, Any], Any], *student: Any) -> Any:
            rows = [part(own, theirs) for own, theirs in zip(student, embedded, strict=True)]
            total = sum(jnp.sum(r * w) for r, w in zip(rows, present, strict=True))
            return total / sum(jnp.sum(w) for w in present)

        if config.distill_cosine:
            parts["distill_cosine"] = compared(distill_cosine, queries, passages)
        if config.distill_similarity:
            similar = partial(compared, distill_similarity)
            parts["distill_similarity"] = _over_widths(config, similar, queries, passages)
    if config.distill_scores:
        teacher = batch.teacher_scores
        if teacher is None and batch.teacher_queries is not None:
            teacher = own_scores(batch.teacher_queries, batch.teacher_passages)
        if teacher is None:
            raise ValueError(
                "distill_scores needs positive_score and negative_scores in the data, or a teacher"
            )

        def ranked(queries: Any, passages: Any) -> Any:
            scores = own_scores(queries, passages)
            return _mean(batch, distill_scores(config, scores, teacher, own_candidates(batch)))

        parts["distill_scores"] = _over_widths(config, ranked, queries, passages)
    return parts


def _over_widths(config: LossConfig, part: Callable[..., Any], *embedded: Any) -> Any:
    """The weighted mean of a part of the loss over the Matryoshka widths."""
    dims = config.matryoshka_dims or (embedded[0].shape[-1],)
    weights = config.matryoshka_weights or (1.0,) * len(dims)
    values = [
        weight * part(*(_leading(x, dim) for x in embedded))
        for dim, weight in zip(dims, weights, strict=True)
    ]
    return sum(values, jnp.float32(0)) / sum(weights)


def _masked(config: LossConfig, scores: Any, positive: Any, negatives: Any) -> Any:
    """Logits of negatives; what is none, or too good to be one, is masked."""
    if config.false_negative_margin is not None:
        limit = positive[:, None] + config.false_negative_margin
        negatives &= jax.lax.stop_gradient(scores <= limit)
    return jnp.where(negatives, scores / config.temperature, MASKED)


def _log_sum(*blocks: Float[Array, "B _"]) -> Float[Array, " B"]:
    """log of the sum of exponentials over all blocks, without joining them."""
    sums = jnp.stack([jax.nn.logsumexp(block, axis=-1) for block in blocks])
    return jax.nn.logsumexp(sums, axis=0)


def _mean(batch: ContrastiveBatch, values: Float[Array, " B"]) -> Float[Array, ""]:
    return jnp.sum(values * batch.weight) / jnp.maximum(jnp.sum(batch.weight), 1e-9)


def _products(a: Float[Array, "B D"], b: Float[Array, "M D"]) -> Float[Array, "B M"]:
    # Highest precision: accelerators would round to bf16 or tf32, which 1 / temperature blows up.
    return jnp.einsum("BD,MD->BM", a, b, precision=jax.lax.Precision.HIGHEST)


def _leading(x: Float[Array, "B D"], dim: int) -> Float[Array, "B E"]:
    if dim > x.shape[-1]:
        raise ValueError(f"a Matryoshka width of {dim} exceeds the embeddings' {x.shape[-1]}")
    return x if dim == x.shape[-1] else l2_normalize(x[:, :dim])


def _same(ids: Int[Array, " B"]) -> Bool[Array, "B B"]:
    return ids[:, None] == ids[None, :]


def _related(batch: ContrastiveBatch) -> Bool[Array, "B B"]:
    """Pairs of examples with the same query text, or of the same group."""
    grouped = _same(batch.group_ids) & (batch.group_ids >= 0)[:, None]
    return _same(batch.query_ids) | grouped
