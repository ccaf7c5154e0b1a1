"""Odd requests against the live server: bodies made by hypothesis, schemathesis on its OpenAPI
schema, and clients that send their bodies slowly. No 5xx, no hang, memory flat.

    python experiments/017_serving/fuzz.py [--bodies 10000] [--schemathesis /venv/bin/schemathesis]

schemathesis may be installed in an environment of its own. Writes fuzz.json beside this file;
table.py prints it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import processes
import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
PATHS = ("/v1/embeddings", "/tokenize", "/similarity")
HEADERS = {"Authorization": f"Bearer {processes.KEY}", "Content-Type": "application/json"}
PATIENCE_S = 30
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
    "unsupported_method,allow_header_conformance,ignored_auth"
)

TEXTS = st.text(st.characters(codec=None), max_size=60)  # lone surrogates are among them
NUMBERS = st.integers() | st.integers(10**20, 10**40) | st.floats() | st.sampled_from([1e308, -0.0])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)
MODELS = st.sampled_from(
    [processes.NAME, f"{processes.NAME}-query", f"{processes.NAME}-passage", "none", ""]
)
FIELDS = {
    "model": MODELS,
    "input": TEXTS | st.lists(TEXTS, max_size=8),
    "queries": TEXTS | st.lists(TEXTS, max_size=4),
    "passages": TEXTS | st.lists(TEXTS, max_size=4),
    "input_type": st.sampled_from(["query", "passage", None]),
    "encoding_format": st.sampled_from(["float", "base64", None]),
    "dimensions": st.integers(-1, 400) | st.none(),
    "truncate": st.sampled_from(["NONE", "START", "END", None]),
    "embedding_type": st.sampled_from(["float", "int8", "uint8", "binary", "ubinary"]),
    "task": TEXTS | st.none(),
}
REQUIRED = ("model", "input", "queries", "passages")
GOOD = st.fixed_dictionaries(
    {name: FIELDS[name] for name in REQUIRED},
    optional={name: values for name, values in FIELDS.items() if name not in REQUIRED},
)
MIXED = st.fixed_dictionaries(
    {"model": MODELS | ANYTHING},
    optional={name: values | ANYTHING for name, values in FIELDS.items() if name != "model"},
)
DEEP = st.integers(1, 20_000).map(lambda depth: b"[" * depth) | st.integers(1, 500).map(
    lambda depth: b'{"model": "minilm", "input": ' + b"[" * depth + b"]" * depth + b"}"
)
JSON = (GOOD | MIXED | ANYTHING).map(lambda value: json.dumps(value).encode())
BODIES = JSON | JSON.map(lambda body: body[: len(body) // 2]) | DEEP | st.binary(max_size=80)


class Client:
    """One connection, opened again when it was closed."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port)
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes) -> int:
        """The status; raises TimeoutError for an answer that does not come."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE_S)
        self._connection.request("POST", path, body, HEADERS)
        answer = self._connection.getresponse()
        answer.read()
        if answer.will_close:
            self._connection.close()
            self._connection = None
        return answer.status


def fuzz_bodies(url: str, pid: int, count: int) -> dict[str, Any]:
    """So many bodies, and the server's memory on the way."""
    client, statuses, memory = Client(url), Counter(), []
    process, every, made = psutil.Process(pid), max(count // 20, 1), 0
    failed: list[str] = []

    @settings(
        max_examples=count, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(PATHS), BODIES)
    def check(path: str, body: bytes) -> None:
        nonlocal made
        status = client.post(path, body)
        statuses[status] += 1
        if status >= 500:
            failed.append(f"{status} {path} {body[:200]!r}")
        made += 1
        if made % every == 0:
            memory.append(round(process.memory_info().rss / 2**20, 1))

    check()
    half = len(memory) // 2
    return {
        "sent": made,
        "statuses": {str(status): seen for status, seen in sorted(statuses.items())},
        "server_errors": len(failed),
        "first_server_errors": failed[:5],
        "memory_mib": memory,
        "memory_growth_of_the_second_half_mib": round(memory[-1] - memory[half], 1),
    }


def ask_for(url: str, seconds: float) -> list[float]:
    """Seconds that each of many requests took, one after the other."""
    client, took, end = Client(url), [], time.monotonic() + seconds
    body = json.dumps({"model": processes.NAME, "input": "a short text"}).encode()
    while time.monotonic() < end:
        start = time.perf_counter()
        if (status := client.post("/v1/embeddings", body)) != 200:
            raise AssertionError(f"status {status} beside slow clients")
        took.append(time.perf_counter() - start)
    return took


def slow_bodies(url: str, pid: int, count: int, seconds: float) -> dict[str, Any]:
    """Latencies with and without so many clients that send a byte now and then."""
    alone = ask_for(url, seconds)
    process, parts = psutil.Process(pid), urlsplit(url)
    before = process.memory_info().rss
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    first = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 100000\r\n\r\n{{"
    slow = [socket.create_connection((parts.hostname, parts.port)) for _ in range(count)]
    for one in slow:
        one.sendall(first.encode())
    beside: list[float] = []
    for _ in range(max(int(seconds), 1)):
        for one in slow:
            one.sendall(b" ")
        beside += ask_for(url, 1)
    grown = process.memory_info().rss - before
    for one in slow:
        one.close()
    facts: dict[str, Any] = {"clients": count, "memory_grown_mib": round(grown / 2**20, 1)}
    for name, took in (("alone", alone), ("beside_slow_clients", beside)):
        p50, p99 = np.percentile(took, [50, 99]) * 1000
        facts |= {f"p50_ms_{name}": round(float(p50), 2), f"p99_ms_{name}": round(float(p99), 2)}
    return facts


def run_schemathesis(program: str, url: str, pid: int, examples: int) -> dict[str, Any]:
    """schemathesis' own run on the schema that the server gives."""
    before = psutil.Process(pid).memory_info().rss
    header = f"Authorization:{HEADERS['Authorization']}"
    command = [
        *(program, "run", f"{url}/openapi.json", "--header", header, "--checks", CHECKS),
        *("--max-examples", str(examples), "--request-timeout", str(PATIENCE_S)),
        *("--continue-on-failure", "--suppress-health-check", "all"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return {
        "version": version.stdout.strip(),
        "exit_code": done.returncode,
        "examples_an_operation": examples,
        "checks": CHECKS,
        "memory_grown_mib": round((psutil.Process(pid).memory_info().rss - before) / 2**20, 1),
        "tail": done.stdout.splitlines()[-60:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--schemathesis", help="the program; left out: that part is not run")
    parser.add_argument("--examples", type=int, default=300, help="of schemathesis, an operation")
    parser.add_argument("--slow", type=int, default=200, help="clients")
    parser.add_argument("--slow-seconds", type=float, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "fuzz.json")
    args = parser.parse_args()
    command = processes.serve_command(
        (processes.MODEL, processes.NAME), options=("--api-key", processes.KEY)
    )
    packages = processes.versions("hypothesis", "fastapi", "starlette", "uvicorn", "pydantic")
    found: dict[str, Any] = {"machine": processes.machine(), "versions": packages}
    with tempfile.TemporaryDirectory() as folder:
        with processes.Server(command, Path(folder) / "server.log") as server:
            server.wait_ready()
            url, pid = server.urls[0], server.pid
            found["bodies"] = fuzz_bodies(url, pid, args.bodies)
            found["slow"] = slow_bodies(url, pid, args.slow, args.slow_seconds)
            if args.schemathesis:
                found["schemathesis"] = run_schemathesis(args.schemathesis, url, pid, args.examples)
        found["exit_code"] = server.code
    args.out.write_text(json.dumps(found, indent=1) + "\n", "utf8")
    print(json.dumps(found, indent=1))
    bad = found["bodies"]["server_errors"] or found.get("schemathesis", {}).get("exit_code")
    sys.exit(1 if bad or found["exit_code"] else 0)


if __name__ == "__main__":
    main()
