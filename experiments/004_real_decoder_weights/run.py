"""Runs a llama2.c checkpoint (stories260K) through our decoder, causal, against plain NumPy.

Every prefix of a text is one row with EOS pooling, so its embedding is the hidden state of one
position; tied logits and the greedy continuation follow from it.
"""

from __future__ import annotations

import argparse
import functools
import json
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import DecoderConfig, ModelConfig
from nvembed_jax.model import embed

PROMPT = [1, 403, 407, 261, 378]  # "Once upon a time"
TENSORS = (
    "embed", "attention_norm", "q", "k", "v", "o", "mlp_norm", "gate", "down", "up", "norm",
)  # fmt: skip


def read_checkpoint(path: Path) -> tuple[DecoderConfig, dict[str, np.ndarray]]:
    """The header's sizes and the tensors in the order of the file."""
    data = path.read_bytes()
    dim, mlp, layers, heads, kv_heads, vocab, _ = struct.unpack("<7i", data[:28])
    if vocab < 0:
        raise ValueError(f"{path}: expected tied embeddings (a positive vocabulary); got {vocab}")
    head = dim // heads
    shapes = dict(zip(TENSORS, (
        (vocab, dim), (layers, dim), (layers, dim, dim), (layers, kv_heads * head, dim),
        (layers, kv_heads * head, dim), (layers, dim, dim), (layers, dim), (layers, mlp, dim),
        (layers, dim, mlp), (layers, mlp, dim), (dim,),
    ), strict=True))  # fmt: skip
    values, start, weights = np.frombuffer(data[28:], "<f4"), 0, {}
    for name, shape in shapes.items():
        weights[name] = values[start : start + np.prod(shape)].reshape(shape)
        start += int(np.prod(shape))
    config = DecoderConfig(
        vocab_size=vocab, embed_dim=dim, mlp_dim=mlp, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=head,
    )  # fmt: skip
    return config, weights


def half_split(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection [L, heads * head, D] from interleaved rotary pairs to split halves."""
    layers, rows, dim = weight.shape
    pairs = weight.reshape(layers, heads, rows // heads // 2, 2, dim)
    return pairs.swapaxes(2, 3).reshape(layers, rows, dim)


def parameters(config: DecoderConfig, w: dict[str, np.ndarray]) -> dict:
    """The weights as our parameter tree."""

    def leaf(value: np.ndarray) -> dict:
        return {"weight": jnp.asarray(value)}

    attention = {
        "q_proj": leaf(half_split(w["q"], config.num_heads)),
        "k_proj": leaf(half_split(w["k"], config.num_kv_heads)),
        "v_proj": leaf(w["v"]),
        "o_proj": leaf(w["o"]),
    }
    layers = {
        "input_layernorm": leaf(w["attention_norm"]),
        "post_attention_layernorm": leaf(w["mlp_norm"]),
        "self_attn": attention,
        "mlp": {f"{name}_proj": leaf(w[name]) for name in ("gate", "up", "down")},
    }
    return {
        "backbone": {"embed_tokens": leaf(w["embed"]), "norm": leaf(w["norm"]), "layers": layers}
    }


def numpy_logits(config: DecoderConfig, w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Logits [T, V] in float64, with the file's own interleaved rotary pairs."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    count, head, groups = len(ids), config.head_dim, config.num_heads // config.num_kv_heads
    angles = np.arange(count)[:, None] * 10000.0 ** (-np.arange(0, head, 2) / head)
    turn = np.exp(1j * angles)[:, None]

    def rotate(x: np.ndarray) -> np.ndarray:
        turned = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * gain

    x = w["embed"][ids]
    for i in range(config.num_layers):
        y = norm(x, w["attention_norm"][i])
        q, k, v = ((y @ w[name][i].T).reshape(count, -1, head) for name in "qkv")
        k, v = rotate(k).repeat(groups, axis=1), v.repeat(groups, axis=1)
        scores = np.einsum("tnh,snh->nts", rotate(q), k) / np.sqrt(head)
        scores = np.exp(np.where(np.tri(count, dtype=bool), scores, -np.inf))
        mixed = np.einsum("nts,snh->tnh", scores / scores.sum(-1, keepdims=True), v)
        x = x + mixed.reshape(count, -1) @ w["o"][i].T
        y = norm(x, w["mlp_norm"][i])
        gate = y @ w["gate"][i].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w["up"][i].T)) @ w["down"][i].T
    return norm(x, w["norm"]) @ w["embed"].T


def prefix_batch(ids: list[int], width: int) -> TokenBatch:
    """One row for every prefix of `ids`, right-padded to `width`; [width, width]."""
    row = np.array(ids + [2] * (width - len(ids)), np.int32)
    mask = np.tri(width, dtype=bool)
    return TokenBatch(np.where(mask, row, 2).astype(np.int32), mask, mask)


def read_pieces(path: Path) -> list[bytes]:
    """The tokenizer's pieces, without their scores."""
    data, start, pieces = path.read_bytes(), 4, []
    while start < len(data):
        (size,) = struct.unpack("<i", data[start + 4 : start + 8])
        pieces.append(data[start + 8 : start + 8 + size])
        start += 8 + size
    return pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds stories260K.bin and tok512.bin")
    parser.add_argument("--tokens", type=int, default=64, help="length of the continuation")
    args = parser.parse_args()
    decoder, weights = read_checkpoint(args.folder / "stories260K.bin")
    config = ModelConfig(family="llama", backbone=decoder, attention="causal", pooling="eos")
    params = parameters(decoder, weights)
    run = jax.jit(functools.partial(embed, config, normalize=False))

    def our_logits(ids: list[int]) -> np.ndarray:
        states = np.asarray(run(params, prefix_batch(ids, args.tokens)))[: len(ids)]
        return states @ weights["embed"].T

    ids = list(PROMPT)
    while len(ids) < args.tokens:
        ids.append(int(our_logits(ids)[-1].argmax()))
    ours, exact = our_logits(ids), numpy_logits(decoder, weights, ids)
    result = {
        "tokens": len(ids),
        "max_logit_difference": float(np.abs(ours - exact).max()),
        "largest_logit": float(np.abs(exact).max()),
        "same_greedy_tokens": bool((ours.argmax(-1) == exact.argmax(-1)).all()),
        "text": b"".join(read_pieces(args.folder / "tok512.bin")[i] for i in ids[1:]).decode(),
        "device": jax.devices()[0].platform,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
