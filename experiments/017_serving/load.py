"""A server under load: half of, nearly all of and more than what it can take, every answer checked;
and a plain sentence-transformers server with the same weights, in the same run.

    python experiments/017_serving/load.py --data FOLDER [--seconds 20] [--texts 4000]

FOLDER holds BEIR-like task folders (queries.jsonl.gz, corpus.jsonl.gz). Server and client share the
cores of this machine. Writes results.json beside this file; table.py prints it.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import LENGTH, MODEL, NAME, Server, load_texts, machine, serve_command, versions
from traffic import Target, closed_loop, open_loop

HERE = Path(__file__).parent
OURS, PEER = "nvembed serve", "sentence-transformers + FastAPI"
SHARES = (0.5, 0.9, 1.5)  # of the capacity; the last for twice the time, till the queue is full
TIMES_PEER = 3  # the peer's load at 0.9 of its capacity, and so many times that for ours
WORKERS = 64  # clients that measure the capacity
BULK = (4, 32)  # clients and texts a request, against the offline encoder
PACKAGES = (
    "jax", "jaxlib", "numpy", "fastapi", "starlette", "uvicorn", "httptools", "uvloop", "torch",
    "transformers", "sentence-transformers",
)  # fmt: skip


def offline(texts: list[str]) -> tuple[np.ndarray, float]:
    """Embeddings of the texts, and texts a second once everything is compiled."""
    from nvembed_jax import Embedder

    model = Embedder.from_pretrained(MODEL, max_length=LENGTH)
    rows = model.encode_document(texts, show_progress_bar=False)
    start = time.perf_counter()
    model.encode_document(texts, show_progress_bar=False)
    return rows, len(texts) / (time.perf_counter() - start)


async def phases(
    target: Target, seconds: float, seed: int, peer_rate: float | None
) -> dict[str, Any]:
    """All loops against one server; a short one first, so that nothing is measured cold."""
    await closed_loop(target, WORKERS, min(seconds, 5), 1)
    capacity = await closed_loop(target, WORKERS, seconds, 1)
    found: dict[str, Any] = {"closed": capacity}
    for share in SHARES:
        rate = share * capacity["requests_per_s"]
        lasts = 2 * seconds if share > 1 else seconds
        found[f"open {share}"] = await open_loop(target, rate, lasts, seed)
        await asyncio.sleep(1)
    if peer_rate is not None:
        name = f"open, {TIMES_PEER} x the peer's"
        found[name] = await open_loop(target, TIMES_PEER * peer_rate, seconds, seed)
    found["bulk"] = await closed_loop(target, BULK[0], seconds, BULK[1])
    return found


def conclusions(ours: dict[str, Any], peer: dict[str, Any], offline_rate: float) -> dict[str, Any]:
    """The ratios that were asked for; None where a server answered nothing in time."""
    bound = peer["open 0.9"]["p99_ms"]
    within = [
        phase["requests_per_s"]
        for name, phase in ours.items()
        if name.startswith("open") and phase["p99_ms"] is not None and phase["p99_ms"] <= bound
    ]
    everything = [*ours.values(), *peer.values()]
    return {
        "wrong_or_lost_answers": sum(phase["wrong"] + phase["lost"] for phase in everything),
        "429_without_retry_after": sum(phase["without_retry_after"] for phase in everything),
        "bulk_to_offline": round(ours["bulk"]["texts_per_s"] / offline_rate, 3),
        "peer_p99_at_0.9_ms": bound,
        "our_p99_at_3_times_that_load_ms": ours[f"open, {TIMES_PEER} x the peer's"]["p99_ms"],
        "throughput_at_that_p99": max(within, default=None),
        "throughput_to_peer_at_that_p99": (
            round(max(within) / peer["open 0.9"]["requests_per_s"], 2) if within else None
        ),
        "capacity_to_peer": round(
            ours["closed"]["requests_per_s"] / peer["closed"]["requests_per_s"], 2
        ),
        "bulk_to_peer": round(ours["bulk"]["texts_per_s"] / peer["bulk"]["texts_per_s"], 2),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    texts = load_texts(args.data, args.texts, args.seed)
    expected, rate = offline(texts)
    print(f"offline: {rate:.0f} texts/s", flush=True)
    results: dict[str, Any] = {}
    from nvembed_jax.checkpoint.resolve import resolve_model

    folder = str(resolve_model(MODEL))
    length = ("--max-length", str(LENGTH), "--warmup-length", str(LENGTH))
    ours = serve_command((folder, NAME), options=length)
    peer = [sys.executable, str(HERE / "peer.py"), "--model", folder, "--length", str(LENGTH)]
    with tempfile.TemporaryDirectory() as logs:
        for name, command, ready in (
            (PEER, peer, "/ready"),
            (OURS, ours, "/v1/health/ready"),
        ):
            rate_of_peer = results[PEER]["open 0.9"]["rate"] if results else None
            with Server(command, Path(logs) / "server.log") as server:
                server.wait_ready(ready)
                target = Target(server.urls[0], NAME, texts, expected)
                work = phases(target, args.seconds, args.seed, rate_of_peer)
                results[name] = asyncio.run(work)
                for phase, found in results[name].items():
                    print(name, phase, json.dumps(found), flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "model": MODEL,
        "texts": len(texts),
        "seconds": args.seconds,
        "offline_texts_per_s": round(rate, 2),
        "servers": results,
        "conclusions": conclusions(results[OURS], results[PEER], rate),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20, help="of each phase")
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    found = run(args)
    args.out.write_text(json.dumps(found, indent=1) + "\n", "utf8")
    print(json.dumps(found["conclusions"], indent=1))


if __name__ == "__main__":
    main()
