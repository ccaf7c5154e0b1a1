"""Next-token loss: which positions count, and that it is torch's cross entropy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch

from nvembed_jax.batch import TokenBatch
from nvembed_jax.train.causal_lm import next_token_loss, target_mask


def test_targets_are_real_and_of_the_same_text():
    mask = jnp.asarray([[True, True, True, True, True, False]])
    segments = jnp.asarray([[0, 0, 0, 1, 1, -1]], jnp.int32)
    ids = jnp.zeros((1, 6), jnp.int32)
    packed = TokenBatch(ids, mask, mask, segments, None)
    assert target_mask(packed).astype(int).tolist() == [[1, 1, 0, 1, 0, 0]]
    padded = TokenBatch(ids, mask, mask)
    assert target_mask(padded).astype(int).tolist() == [[1, 1, 1, 1, 0, 0]]


def test_loss_is_cross_entropy_of_the_next_token():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 7, 11)).astype(np.float32)
    ids = rng.integers(0, 11, (3, 7)).astype(np.int32)
    mask = rng.random((3, 7)) < 0.7
    mask[:, -1] = False
    loss, metrics = next_token_loss(*(jnp.asarray(x) for x in (logits, ids, mask)))
    flat = torch.tensor(logits)[:, :-1][torch.tensor(mask[:, :-1])]
    targets = torch.tensor(ids[:, 1:].astype(np.int64))[torch.tensor(mask[:, :-1])]
    expected = torch.nn.functional.cross_entropy(flat, targets)
    np.testing.assert_allclose(loss, expected.numpy(), rtol=1e-5)
    right = (flat.argmax(1) == targets).float().mean()
    np.testing.assert_allclose(metrics["accuracy"], right.numpy(), rtol=1e-6)
