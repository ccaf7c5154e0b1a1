"""Full-size NV-Embed with random weights on an accelerator: tokens/s, share of the measured matmul
rate, query latency.

    python experiments/002_encode_gpu/run.py            # 7.85 B parameters, bfloat16
    python experiments/002_encode_gpu/run.py --reduced  # a few million, to try the script on a CPU

Parameters are born on the device, layer by layer in the scanned form. Padding is not counted in
tokens/s. Appends to results.jsonl beside this file (or in --out).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import DecoderConfig, ModelConfig, nv_embed_v2, tiny
from nvembed_jax.model import Compute, embed, fold_latents, init_params
from nvembed_jax.text.packing import bucket_lengths, pad, plan_batches
from nvembed_jax.text.tokenizer import Encoded

HERE = Path(__file__).parent


def timed(function, *args, repeats: int) -> float:
    """Median seconds of a call that returns device arrays."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate(size: int, dtype) -> float:
    """Measured FLOP/s of one square matmul: the ceiling that shares are of."""
    a = jnp.ones((size, size), dtype)
    seconds = timed(jax.jit(lambda x, y: x @ y), a, a, repeats=10)
    return 2 * size**3 / seconds


def flops_per_token(config: ModelConfig, length: int) -> float:
    """Multiply-adds of the folded model, times two; attention at the given length."""
    b = config.backbone
    assert isinstance(b, DecoderConfig)
    attention = b.embed_dim * b.head_dim * (2 * b.num_heads + 2 * b.num_kv_heads)
    layer = attention + 3 * b.embed_dim * b.mlp_dim + 2 * length * b.num_heads * b.head_dim
    latent = config.latent
    assert latent is not None
    slots = latent.num_cross_heads * latent.num_latents
    pooling = 2 * b.embed_dim * slots + 2 * latent.mlp_multiplier * b.embed_dim**2
    return 2.0 * (b.num_layers * layer + pooling)


def random_texts(lengths: np.ndarray, vocab: int, seed: int) -> list[Encoded]:
    draw = np.random.default_rng(seed)
    return [Encoded(draw.integers(3, vocab, n).astype(np.int32), 0, int(n)) for n in lengths]


def throughput(run, params, config, lengths, batch_tokens, repeats) -> dict:
    """Tokens/s of whole passes over texts of the given lengths, batches planned as `Embedder`
    does."""
    texts = random_texts(lengths, config.backbone.vocab_size, 0)
    plans = plan_batches(lengths, batch_tokens, bucket_lengths(int(lengths.max())))
    batches = [
        TokenBatch(*pad([texts[i] for i in plan.indices], plan.length, plan.rows, 0))
        for plan in plans
    ]
    seconds = timed(lambda: [run(params, batch) for batch in batches], repeats=repeats)
    tokens = int(lengths.sum())
    flops = sum(flops_per_token(config, int(n)) * int(n) for n in lengths)
    slots = sum(plan.rows * plan.length for plan in plans)
    return {
        "tokens_per_s": tokens / seconds,
        "flops_per_s": flops / seconds,
        "padding": 1 - tokens / slots,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    config = tiny() if args.reduced else nv_embed_v2()
    dtype = jnp.float32 if args.reduced else jnp.bfloat16
    texts, budget = (16, 1024) if args.reduced else (args.texts, args.batch_tokens)
    params = jax.jit(partial(init_params, config, dtype=dtype))(jax.random.key(0))
    folded = jax.jit(partial(fold_latents, config), donate_argnums=0)(params)
    compute = Compute(dtype=dtype, kernel=args.kernel)
    run = jax.jit(partial(embed, config, compute=compute))
    ceiling = matmul_rate(512 if args.reduced else 8192, dtype)
    draw = np.random.default_rng(0)
    mixes = {
        "128": np.full(texts, 128),
        "512": np.full(texts, 512),
        "mixed": np.clip(
            draw.lognormal(5.0, 0.8, texts).astype(int), 8, 2048 if not args.reduced else 256
        ),
    }
    speed = {}
    for name, lengths in mixes.items():
        speed[name] = throughput(run, folded, config, lengths, budget, args.repeats)
        speed[name]["share_of_matmul_rate"] = speed[name]["flops_per_s"] / ceiling
        print(name, json.dumps(speed[name]), flush=True)
    query = TokenBatch(*pad(random_texts(np.array([24]), config.backbone.vocab_size, 1), 32, 1, 0))
    latency = timed(run, folded, query, repeats=50 if not args.reduced else 10)
    stats = jax.devices()[0].memory_stats() or {}
    result = {
        "experiment": "002_encode_gpu",
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "model": config.name,
        "parameters": sum(
            x.size
            for x in jax.tree.leaves(
                jax.eval_shape(partial(init_params, config), jax.random.key(0))
            )
        ),
        "dtype": jnp.dtype(dtype).name,
        "compute": {k: str(v) for k, v in dataclasses.asdict(compute).items()},
        "matmul_flops_per_s": ceiling,
        "throughput": speed,
        "query_p50_ms": latency * 1e3,
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "seed": 0,
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "flax")},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
