"""The full-size LoRA training step on an accelerator: tokens/s, share of the measured matmul rate,
memory against the plan.

    python experiments/009_train_gpu/run.py            # 7.85 B parameters, 512 tokens, bfloat16
    python experiments/009_train_gpu/run.py --reduced  # the tiny model, to try the script on a CPU

The paper's set-up with random weights: LoRA rank 16 on the backbone, the latent block trained in
full. Model FLOPs: 2N forward and 2N backward a token for frozen matrices, 2N more for those trained
in full; recomputation is not counted. Appends to results.jsonl beside this file (or in --out).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from nvembed_jax.batch import ContrastiveBatch, TokenBatch
from nvembed_jax.config import NAMED_CONFIGS, ModelConfig
from nvembed_jax.model import init_params
from nvembed_jax.model.lora import init_adapters
from nvembed_jax.sharding import make_mesh
from nvembed_jax.train.memory import device_limit
from nvembed_jax.train.metrics import flops_per_token
from nvembed_jax.train.program import Program
from nvembed_jax.train.recipe import Recipe, parse_recipe
from nvembed_jax.train.trainable import split_params

HERE = Path(__file__).parent


def matmul_rate(size: int, dtype: Any) -> float:
    """Measured FLOP/s of one square matmul: the ceiling that shares are of."""
    a = jnp.ones((size, size), dtype)
    run = jax.jit(lambda x, y: x @ y)
    jax.block_until_ready(run(a, a))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(run(a, a))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)


def make_recipe(options: argparse.Namespace) -> Recipe:
    """One stage with the paper's LoRA; one hard negative, so that a step is short."""
    stage = {
        "data": "random", "steps": 100, "batch_size": options.batch, "negatives": 1,
        "chunk_size": options.chunk, "query_length": options.length,
        "passage_length": options.length,
    }  # fmt: skip
    return parse_recipe(
        {
            "name": "009_train_gpu",
            "model": {
                "named": "tiny" if options.reduced else "nv_embed_v2",
                "tokenizer": "packaged",
            },
            "trainable": {"full": [r"pooling\..*"], "lora": {"rank": 16, "dropout": 0.1}},
            "compute": {
                "dtype": "float32" if options.reduced else "bfloat16",
                "remat": options.remat,
                "kernel": options.kernel,
            },
            "stage1": stage,
        }
    )


def random_batch(config: ModelConfig, rows: int, length: int) -> ContrastiveBatch:
    """Full rows of random tokens: nothing is padding."""
    draw = np.random.default_rng(0)

    def tokens(count: int) -> TokenBatch:
        ids = draw.integers(3, config.backbone.vocab_size, (count, length)).astype(np.int32)
        mask = np.ones((count, length), bool)
        return TokenBatch(ids, mask, mask)

    ids = np.arange(1, 3 * rows + 1, dtype=np.int32)
    return ContrastiveBatch(
        queries=tokens(rows), passages=tokens(2 * rows), query_ids=ids[:rows],
        passage_ids=ids[rows:].reshape(rows, 2), known_ids=ids[rows::2][:rows, None],
        group_ids=np.full(rows, -1, np.int32), source_ids=np.zeros(rows, np.int32),
        passage_mask=np.ones((rows, 2), bool), in_batch=np.ones(rows, bool),
        weight=np.ones(rows, np.float32),
    )  # fmt: skip


def make_state(recipe: Recipe, program: Program, config: ModelConfig) -> tuple[Any, Any]:
    """(state, frozen), born on the device: frozen in the compute dtype, trained in float32."""
    dtype = program.compute.dtype

    def draw(key: Any) -> Any:
        params = init_params(config, key)
        full, frozen = split_params(recipe.trainable, params)
        assert recipe.trainable.lora is not None
        adapters = init_adapters(recipe.trainable.lora, params, key)
        return {"full": full, "lora": adapters}, jax.tree.map(lambda x: x.astype(dtype), frozen)

    trainable, frozen = jax.jit(draw)(jax.random.key(0))
    return program.init_state(trainable), frozen


def step_flops(recipe: Recipe, config: ModelConfig) -> float:
    """Model FLOPs of one token in one step."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    _, frozen = split_params(recipe.trainable, shapes)
    frozen_only = flatten_dict(frozen, sep=".")
    kept = {k: v for k, v in flatten_dict(shapes, sep=".").items() if k in frozen_only}
    everything = flops_per_token(config, shapes, True)
    return everything - 2.0 * sum(
        float(np.prod(leaf.shape)) for name, leaf in kept.items() if "_proj.weight" in name
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--remat", default="dots")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    if options.reduced:
        options.batch, options.chunk, options.length, options.steps = 8, 8, 64, 3
    recipe = make_recipe(options)
    config = NAMED_CONFIGS[recipe.model.named]()
    mesh = make_mesh(devices=jax.devices()[:1])
    program = Program(recipe, recipe.stages["stage1"], config, mesh)
    ceiling = matmul_rate(512 if options.reduced else 8192, program.compute.dtype)
    state, frozen = make_state(recipe, program, config)
    plan = program.plan(state, frozen, device_limit())
    print(plan.table(), flush=True)
    batch = jax.device_put(random_batch(config, options.batch, options.length))
    analysis = program.compiled(state, frozen, batch).memory_analysis()
    state, metrics = program(state, frozen, batch)
    jax.block_until_ready(metrics)
    times = []
    for _ in range(options.steps):
        start = time.perf_counter()
        state, metrics = program(state, frozen, batch)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    tokens = 3 * options.batch * options.length
    rate = tokens / statistics.median(times)
    stats = jax.devices()[0].memory_stats() or {}
    result = {
        "experiment": "009_train_gpu",
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "model": config.name,
        "batch": options.batch, "chunk": options.chunk, "length": options.length,
        "remat": options.remat, "kernel": options.kernel,
        "loss": float(metrics["loss"]),
        "step_s": times,
        "tokens_per_s": rate,
        "matmul_flops_per_s": ceiling,
        "share_of_matmul_rate": rate * step_flops(recipe, config) / ceiling,
        "planned_bytes": plan.total,
        "compiled_bytes": analysis.argument_size_in_bytes + analysis.temp_size_in_bytes,
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "flax", "optax")},
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
