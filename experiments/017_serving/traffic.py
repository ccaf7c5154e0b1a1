"""Requests against a server: closed and open loops on a small HTTP client, every answer checked
against its text.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

TOLERANCE = 1e-4  # of a number of an embedding; different texts are far further apart
_PATIENCE_S = 120


@dataclass
class Tally:
    """What became of the requests of one phase."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    without_retry_after: int = 0
    texts: int = 0


class Target:
    """A server, texts, and the embeddings that they must come back as."""

    def __init__(self, url: str, model: str, texts: list[str], expected: np.ndarray):
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.texts, self.expected = texts, expected
        self._fields = {"model": model, "truncate": "END"}

    def request(self, indices: list[int]) -> bytes:
        """All bytes of a request for some of the texts."""
        texts = [self.texts[i] for i in indices]
        body = orjson.dumps({**self._fields, "input": texts})
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def is_right(self, indices: list[int], content: bytes) -> bool:
        """Whether an answer has the embeddings of these texts, in their order."""
        rows = [item["embedding"] for item in orjson.loads(content)["data"]]
        if len(rows) != len(indices):
            return False
        found = np.asarray(rows, np.float32)
        return bool(np.abs(found - self.expected[indices]).max() <= TOLERANCE)


class Connections:
    """Open connections; there is one for whoever asks."""

    def __init__(self, address: tuple[str, int]):
        self._address = address
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(self, content: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the answer."""
        pair = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        reader, writer = pair
        writer.write(content)
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (x.partition(b":") for x in lines)}
        body = await reader.readexactly(int(headers[b"content-length"]))
        self._idle.append(pair)
        return int(first.split()[1]), headers, body

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def _one(
    target: Target, connections: Connections, indices: list[int], due: float, tally: Tally
) -> None:
    """One request; its latency counts from when it was due."""
    try:
        status, headers, body = await connections.ask(target.request(indices))
    except (OSError, asyncio.IncompleteReadError):
        tally.lost += 1
        return
    took = time.perf_counter() - due
    tally.statuses[status] += 1
    if status == 429:
        tally.without_retry_after += not headers.get(b"retry-after", b"").isdigit()
    if status != 200:
        return
    tally.latencies.append(took)
    tally.texts += len(indices)
    tally.wrong += not target.is_right(indices, body)


async def closed_loop(target: Target, workers: int, seconds: float, batch: int) -> dict[str, Any]:
    """So many clients, each with one open request of `batch` texts at a time."""
    tally, connections = Tally(), Connections(target.address)
    begin, turn = time.perf_counter(), 0

    async def client() -> None:
        nonlocal turn
        while (now := time.perf_counter()) < begin + seconds:
            indices = [(turn + i) % len(target.texts) for i in range(batch)]
            turn += batch
            await _one(target, connections, indices, now, tally)

    await asyncio.gather(*(client() for _ in range(workers)))
    connections.close()
    return summary(tally, time.perf_counter() - begin) | {"workers": workers, "batch": batch}


async def open_loop(target: Target, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """Requests of one text at random moments, `rate` a second on average, whether the earlier ones
    are answered or not."""
    tally, connections, draw = Tally(), Connections(target.address), random.Random(seed)
    begin, due, tasks = time.perf_counter(), 0.0, []
    while True:
        due += draw.expovariate(rate)
        if due > seconds:
            break
        if (wait := begin + due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        indices = [draw.randrange(len(target.texts))]
        tasks.append(asyncio.ensure_future(_one(target, connections, indices, begin + due, tally)))
    late = time.perf_counter() - begin - seconds
    done, open_ = await asyncio.wait(tasks, timeout=_PATIENCE_S)
    for task in open_:
        task.cancel()
    tally.lost += len(open_)
    for task in done:
        task.result()
    connections.close()
    facts = {"rate": round(rate, 2), "sent": len(tasks), "client_late_s": round(max(late, 0), 3)}
    return summary(tally, time.perf_counter() - begin) | facts


def summary(tally: Tally, seconds: float) -> dict[str, Any]:
    """Numbers of a phase; latencies in milliseconds, of answered requests."""
    of = np.percentile(tally.latencies, [50, 99]) * 1000 if tally.latencies else (None, None)
    return {
        "seconds": round(seconds, 2),
        "answered": len(tally.latencies),
        "statuses": {str(code): count for code, count in sorted(tally.statuses.items())},
        "wrong": tally.wrong,
        "lost": tally.lost,
        "without_retry_after": tally.without_retry_after,
        "requests_per_s": round(len(tally.latencies) / seconds, 2),
        "texts_per_s": round(tally.texts / seconds, 2),
        "p50_ms": None if of[0] is None else round(float(of[0]), 2),
        "p99_ms": None if of[1] is None else round(float(of[1]), 2),
    }
