"""Memory of one training step against the batch, with GradCache and without.

    python experiments/008_grad_cache/run.py [--most 4096] [--chunk 128]

The tiny model (NV-Embed's architecture), one hard negative, 64 tokens. Every batch is a process of
its own: what the compiled step needs (XLA's own count), what of it must grow (embeddings, scores),
and the peak of resident memory over a step that is run. Writes results.jsonl beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import resource
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PLAIN_UP_TO = 1024  # without chunks


def worker(rows: int, chunk: int) -> None:
    """One step; prints its figures."""
    import jax

    from nvembed_jax.config import tiny
    from nvembed_jax.sharding import make_mesh
    from nvembed_jax.train.program import Program
    from nvembed_jax.train.recipe import parse_recipe

    spec = importlib.util.spec_from_file_location(
        "train_gpu", HERE.parent / "009_train_gpu" / "run.py"
    )
    assert spec is not None
    assert spec.loader is not None
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    stage = {"data": "random", "steps": 10, "batch_size": rows, "negatives": 1, "chunk_size": chunk}
    recipe = parse_recipe(
        {
            "name": "008_grad_cache",
            "model": {"named": "tiny", "tokenizer": "packaged"},
            "trainable": {"full": [r"pooling\..*"], "lora": {"rank": 16}},
            "stage1": stage,
        }
    )
    config = tiny()
    program = Program(recipe, recipe.stages["stage1"], config, make_mesh())
    state, frozen = step.make_state(recipe, program, config)
    batch = jax.device_put(step.random_batch(config, rows, 64))
    analysis = program.compiled(state, frozen, batch).memory_analysis()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _, metrics = program(state, frozen, batch)
    loss = float(metrics["loss"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "batch": rows, "chunk": chunk, "loss": loss,
                "compiled_temp_bytes": analysis.temp_size_in_bytes,
                "embeddings_bytes": 3 * rows * config.embed_dim * 4,
                "scores_bytes": rows * 2 * rows * 4,
                "resident_before_bytes": before, "resident_peak_bytes": peak,
            }
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--worker", type=int, nargs=2, metavar=("BATCH", "CHUNK"))
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
        return
    sizes = [256 * 2**i for i in range(20) if 256 * 2**i <= options.most]
    arms = [(rows, options.chunk) for rows in sizes]
    arms += [(rows, 0) for rows in sizes if rows <= PLAIN_UP_TO]
    names = ("jax", "jaxlib", "flax", "optax")
    facts = {
        "date": datetime.date.today().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }
    lines = [json.dumps(facts)]
    for rows, chunk in arms:
        command = [sys.executable, __file__, "--worker", str(rows), str(chunk)]
        out = subprocess.run(command, capture_output=True, text=True)
        if out.returncode:
            raise SystemExit(out.stderr[-3000:])
        lines.append(out.stdout.strip().splitlines()[-1])
        print(lines[-1], flush=True)
    (HERE / "results.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
