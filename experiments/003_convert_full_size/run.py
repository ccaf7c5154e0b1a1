"""Converts a random NV-Embed checkpoint of the full size, against copying the same files.

Every timed run is a process of its own that starts with the source dropped from the page cache and
ends when all that it wrote is on the disk; its RssAnon is polled from outside.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nvembed_jax.checkpoint.keys import published_names
from nvembed_jax.checkpoint.published_form import write_published_config
from nvembed_jax.checkpoint.safetensors_io import SafetensorsFolder
from nvembed_jax.checkpoint.safetensors_write import (
    SafetensorsWriter,
    TensorSpec,
    make_header,
    plan_shards,
    write_index,
)
from nvembed_jax.checkpoint.shapes import expected_shapes
from nvembed_jax.config import ModelConfig, nv_embed_v2

BF16 = np.dtype(ml_dtypes.bfloat16)
BLOCK = 1 << 24  # random values; tensors are cut from it at varying places
COPY = """
import os, shutil, sys, time
from pathlib import Path
src, dst = Path(sys.argv[1]), Path(sys.argv[2])
start = time.perf_counter()
dst.mkdir()
for file in sorted(src.iterdir()):
    shutil.copyfile(file, dst / file.name)
    with open(dst / file.name, "rb") as stream:
        os.fsync(stream.fileno())
print(time.perf_counter() - start)
"""
CONVERT = """
import sys, time
from nvembed_jax.checkpoint import {name}
start = time.perf_counter()
{name}(sys.argv[1], sys.argv[2])
print(time.perf_counter() - start)
"""
SCRIPTS = {
    "copy": COPY,
    "convert": CONVERT.format(name="convert_checkpoint"),
    "export": CONVERT.format(name="export_checkpoint"),
}


def main() -> None:
    """Runs the experiment and appends one line a timed run, and one of checks, to the results."""
    args = arguments()
    config = nv_embed_v2()
    if args.layers:
        backbone = dataclasses.replace(config.backbone, num_layers=args.layers)
        config = dataclasses.replace(config, backbone=backbone)
    work = Path(args.work_dir) / f"convert_full_size_{os.getpid()}"
    size = 2 * sum(int(np.prod(shape)) for shape in expected_shapes(config).values())
    free = shutil.disk_usage(args.work_dir).free
    if free < 3.1 * size:
        raise SystemExit(
            f"{3.1 * size / 1e9:.0f} GB are needed in {args.work_dir}, {free / 1e9:.0f} are free"
        )
    work.mkdir()
    try:
        make_checkpoint(work / "src", config)
        for line in [*timed_pairs(work, args.pairs), checks(work)]:
            line = {"bytes": size, "layers": config.backbone.num_layers, **machine(), **line}
            print(json.dumps(line), flush=True)
            with open(args.results, "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
    finally:
        shutil.rmtree(work)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="a folder on the disk to be measured")
    parser.add_argument("--pairs", type=int, default=3, help="copy and conversion, so many times")
    parser.add_argument("--layers", type=int, default=0, help="fewer layers, for a trial")
    results = Path(__file__).parent / "results.jsonl"
    parser.add_argument("--results", default=str(results))
    return parser.parse_args()


def make_checkpoint(folder: Path, config: ModelConfig) -> None:
    """A random bf16 checkpoint in the published form, written shard by shard."""
    folder.mkdir()
    values = np.random.default_rng(0).standard_normal(BLOCK, np.float32)
    block = (0.02 * values).astype(BF16)
    del values
    specs = []
    shapes = expected_shapes(config)
    for ours, published in published_names(config, "embedding_model.", ()).items():
        shape = shapes[ours][1:] if len(published) > 1 else shapes[ours]
        specs += [TensorSpec(name, BF16, shape) for name in published]
    shards = plan_shards(specs)
    rng = np.random.default_rng(1)
    for file, group in shards.items():
        header = make_header(group, {"format": "pt"})
        with SafetensorsWriter(folder / file, header, sum(s.nbytes for s in group)) as writer:
            for spec in group:
                left = spec.nbytes // 2
                while left:
                    start = int(rng.integers(0, BLOCK // 2))
                    part = block[start : start + left]
                    writer.write(part, BF16, spec.name)
                    left -= part.size
    write_index(folder, shards)
    write_published_config(folder, config, "bfloat16")


def timed_pairs(work: Path, pairs: int) -> list[dict[str, Any]]:
    """Copy and conversion, in turns that change their order."""
    lines = []
    for pair in range(pairs):
        for kind in ("copy", "convert")[:: 1 if pair % 2 == 0 else -1]:
            lines.append({"pair": pair, **timed(kind, work / "src", work / "dst")})
            shutil.rmtree(work / "dst")
    return lines


def timed(kind: str, src: Path, dst: Path) -> dict[str, Any]:
    """Seconds of one run in a process of its own, and its peak RssAnon in MiB."""
    forget(src)
    command = [sys.executable, "-c", SCRIPTS[kind], str(src), str(dst)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            peak = max(peak, rss_anon(process.pid))
            time.sleep(0.01)
        assert process.stdout is not None
        seconds = float(process.stdout.read())
    return {"run": kind, "seconds": round(seconds, 2), "peak_rss_anon_mib": round(peak / 1024, 1)}


def rss_anon(pid: int) -> int:
    """RssAnon of a process in KiB; 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def forget(folder: Path) -> None:
    """Drops the files of a folder from the page cache."""
    for file in folder.iterdir():
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def checks(work: Path) -> dict[str, Any]:
    """Converts once more, compares some tensors, exports, and compares the hashes of all files."""
    convert = timed("convert", work / "src", work / "jax")
    src, ours = SafetensorsFolder(work / "src"), SafetensorsFolder(work / "jax")
    for layer in (0, 1):
        name = "mlp.down_proj.weight"
        stacked = ours[f"backbone.layers.{name}"].view()
        np.testing.assert_array_equal(
            stacked[layer].view(np.uint16),
            src[f"embedding_model.layers.{layer}.{name}"].view().view(np.uint16),
        )
    back = timed("export", work / "jax", work / "back")
    wanted, found = hashes(work / "src"), hashes(work / "back")
    return {
        "run": "checks",
        "convert_seconds": convert["seconds"],
        "export_seconds": back["seconds"],
        "export_peak_rss_anon_mib": back["peak_rss_anon_mib"],
        "files": len(wanted),
        "files_bit_identical": wanted == found,
    }


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    out = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            out[str(file.relative_to(folder))] = digest
    return out


def machine() -> dict[str, Any]:
    """Where this ran."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
