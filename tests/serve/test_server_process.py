"""A server in a process of its own, over loopback: slow, vanished and late clients, and SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import numpy as np
import pytest
from served_app import make_embedder

from nvembed_jax.serve import kserve

SCRIPT = """
from served_app import make_embedder
from nvembed_jax.serve import ServerSettings
from nvembed_jax.serve.logs import configure
from nvembed_jax.serve.server import run_server

configure("info")
settings = ServerSettings(warmup=False, batch_tokens=256, drain_delay_s=1.0)
models = [("nv", make_embedder(0))]
run_server(
    models, settings, port=0, grpc_port=0, on_listening=lambda url: print(url, flush=True)
)
"""
BODY = {"model": "nv", "input": "a", "input_type": "passage"}


class Process:
    """The running server: its URL, its gRPC address and its log."""

    def __init__(self, log: Path):
        self.log = log
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        self.url = self.process.stdout.readline().strip()
        assert self.url, log.read_text()
        self.grpc = self.process.stdout.readline().strip().removeprefix("grpc://")
        while httpx.get(self.url + "/v1/health/ready").status_code != 200:
            time.sleep(0.02)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Process(tmp_path_factory.mktemp("server") / "log.jsonl")
    yield running
    running.process.kill()
    running.process.wait()
    running.process.stdout.close()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def test_it_answers_as_the_embedder(server):
    body = httpx.post(server.url + "/v1/embeddings", json=BODY, timeout=60).json()
    expected = make_embedder(0).encode_document("a")
    np.testing.assert_allclose(body["data"][0]["embedding"], expected, atol=1e-6)


def infer(channel: grpc.Channel, texts: list[str]) -> np.ndarray:
    """Passages over gRPC."""
    message = kserve.messages["ModelInferRequest"](model_name="nv_passage")
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=(len(texts), 1))
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    call = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
    content = call(message.SerializeToString(), timeout=60)
    answer = kserve.messages["ModelInferResponse"].FromString(content)
    return np.frombuffer(answer.raw_output_contents[1], "<f4").reshape(len(texts), -1)


def test_it_answers_over_grpc_too(server):
    with grpc.insecure_channel(server.grpc) as channel:
        expected = make_embedder(0).encode_document(["a"])
        np.testing.assert_allclose(infer(channel, ["a"]), expected, atol=1e-6)


def test_slow_and_vanished_clients_hold_up_nobody(server):
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{"
    slow = [connect(server.url) for _ in range(20)]
    for one in slow:
        one.sendall(head)
    body = json.dumps({**BODY, "input": ["word " * 30] * 500}).encode()
    gone = connect(server.url)
    gone.sendall(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    time.sleep(0.1)
    gone.close()
    start = time.monotonic()
    assert httpx.post(server.url + "/v1/embeddings", json=BODY, timeout=60).status_code == 200
    assert time.monotonic() - start < 10
    for one in slow:
        one.close()
    deadline = time.monotonic() + 20
    while not any(line.get("status") == 499 for line in server.lines()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "nvembed_queue_requests 0.0" in httpx.get(server.url + "/v1/metrics").text


def test_a_body_too_large_is_413_also_for_a_client_that_goes_on_sending(server):
    response = httpx.post(server.url + "/v1/embeddings", content=b" " * (17 * 2**20), timeout=60)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_sigterm_turns_ready_off_finishes_requests_and_ends_with_0(server):
    answers, texts = [], [f"{i} " + "word " * 30 for i in range(2000)]

    def ask():
        body = {**BODY, "input": texts}
        answers.append(httpx.post(server.url + "/v1/embeddings", json=body, timeout=60))

    def ask_rpc():
        with grpc.insecure_channel(server.grpc) as channel:
            answers.append(infer(channel, texts))

    threads = [threading.Thread(target=ask), threading.Thread(target=ask_rpc)]
    for thread in threads:
        thread.start()
    with httpx.Client(base_url=server.url) as client:
        while "nvembed_queue_requests 2.0" not in client.get("/v1/metrics").text:
            time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        while client.get("/v1/health/ready").status_code == 200:
            time.sleep(0.005)
        assert client.get("/v1/health/live").status_code == 200
    for thread in threads:
        thread.join()
    assert server.process.wait(timeout=30) == 0
    (http,) = (answer for answer in answers if isinstance(answer, httpx.Response))
    (rows,) = (answer for answer in answers if isinstance(answer, np.ndarray))
    got = np.array([item["embedding"] for item in http.json()["data"]], np.float32)
    np.testing.assert_allclose(got, rows, atol=1e-6)
    assert all({"time", "level", "event"} <= set(line) for line in server.lines())
    with pytest.raises(OSError, match="refused"):
        connect(server.url)
