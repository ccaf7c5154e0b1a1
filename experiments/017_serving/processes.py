"""Servers as processes of their own, and the texts and models that the scripts share."""

from __future__ import annotations

import gzip
import json
import platform
import random
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NAME = "minilm"
PREFIXED = "acme/MiniLM-prefixed"  # the same weights, queries and passages told apart
KEY = "key-of-the-experiment"
LENGTH = 256  # tokens that every server reads
_URL = re.compile(r"serving at (\S+)")


class Server:
    """A process that says on standard error where it serves; ends with the block.

    Attributes:
        urls: in the order in which they were told. pid: of the process.
    """

    def __init__(self, command: list[str], log: Path, urls: int = 1, timeout_s: float = 300):
        self._log, self._file = log, log.open("w")
        self._process = subprocess.Popen(command, stderr=self._file, stdout=self._file)
        self.pid = self._process.pid
        end = time.monotonic() + timeout_s
        while len(found := _URL.findall(log.read_text("utf8"))) < urls:
            self._must_live(end)
        self.urls = found

    def wait_ready(self, path: str = "/v1/health/ready", timeout_s: float = 600) -> None:
        """Until the path answers with 200."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                with urllib.request.urlopen(self.urls[0] + path, timeout=5):
                    return
            except OSError:
                self._must_live(end)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self.code = self._process.wait(timeout=60)
        self._file.close()

    def _must_live(self, end: float) -> None:
        if self._process.poll() is not None or time.monotonic() > end:
            self._process.kill()
            raise RuntimeError(f"the server did not start:\n{self._log.read_text('utf8')[-2000:]}")
        time.sleep(0.1)


def serve_command(*models: tuple[str, str], options: tuple[str, ...] = ()) -> list[str]:
    """`nvembed serve` with (model, name) pairs on free ports."""
    chosen = [word for model, name in models for word in ("--model", model, "--name", name)]
    ports = ["--port", "0", "--log-level", "warning"]
    return [sys.executable, "-m", "nvembed_jax", "serve", *chosen, *ports, *options]


def write_prefixed(folder: Path) -> Path:
    """The model with a prefix for queries and one for passages."""
    from nvembed_jax import Embedder
    from nvembed_jax.checkpoint.resolve import resolve_model
    from nvembed_jax.checkpoint.saving import save_model
    from nvembed_jax.checkpoint.store import load_config, load_params

    source = resolve_model(MODEL)
    config = load_config(source)
    text = replace(config.text, query_prompt="query: ", passage_prompt="passage: ")
    config = replace(config, text=text, name=PREFIXED)
    save_model(folder, config, load_params(source, config), src_folder=source)
    Embedder.from_pretrained(folder)  # it loads
    return folder


def read_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


def load_texts(data: Path, count: int, seed: int) -> list[str]:
    """Queries of at most 32 words and passages, half of each, of all task folders that have them;
    no text twice."""
    draw = random.Random(seed)
    queries, passages = [], []
    for folder in sorted(path.parent for path in data.glob("*/queries.jsonl.gz")):
        queries += [row["text"] for row in read_rows(folder / "queries.jsonl.gz")]
        rows = read_rows(folder / "corpus.jsonl.gz")
        passages += [f"{row.get('title', '')} {row['text']}".strip() for row in rows]
    if not queries:
        raise SystemExit(f"{data}: no folder with queries.jsonl.gz in it")
    queries = [text for text in queries if len(text.split()) <= 32]
    drawn = [
        draw.sample(sorted(set(texts)), min(count // 2, len(set(texts))))
        for texts in (queries, passages)
    ]
    texts = sorted({*drawn[0], *drawn[1]})
    draw.shuffle(texts)
    return texts


def machine() -> dict[str, Any]:
    """What the run was made on."""
    import os

    model = ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        model = re.findall(r"model name\s*:\s*(.*)", info.read_text())[0]
    return {
        "cpu": model or platform.processor(),
        "threads": os.cpu_count(),
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of what is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
