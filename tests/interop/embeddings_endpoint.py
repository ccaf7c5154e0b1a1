"""An embeddings endpoint on this machine, in the manner of OpenAI or NIM, with bad days at will."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

WIDTH = 8


def made_vector(body: dict, text: str) -> np.ndarray:
    """A vector that depends on the text and on the side it is on; not of length one."""
    seed = [*text.encode(), *body.get("input_type", "").encode(), *body.get("task", "").encode()]
    width = body.get("dimensions", WIDTH)
    return np.random.default_rng(seed).normal(size=width).astype(np.float32)


class Service:
    """What the endpoint does.

    vector: (request body, text) -> embedding. status: (number of the request, body) -> (status,
    headers, message); 200 answers. reply: (answer) -> another answer. key: asked for as a bearer.
    """

    def __init__(
        self,
        vector: Callable[[dict, str], Any] = made_vector,
        status: Callable[[int, dict], tuple] | None = None,
        reply: Callable[[dict], Any] | None = None,
        key: str | None = None,
        most_texts: int | None = None,
        shuffle: bool = False,
        delay: float = 0.0,
        model: str = "the-model",
    ):
        self.vector, self.status, self.reply, self.key = vector, status, reply, key
        self.most_texts, self.shuffle, self.delay, self.model = most_texts, shuffle, delay, model
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    @property
    def texts(self) -> list[str]:
        """All texts that came, in the order of the requests."""
        return [text for body in self.bodies for text in body["input"]]

    def respond(self, number: int, body: dict, headers: dict[str, str]) -> tuple[int, dict, Any]:
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            sent = headers.get("Authorization", "")
            return 401, {}, {"error": {"message": f"Incorrect API key provided: {sent}"}}
        if body["model"] != self.model:
            return 404, {}, {"error": {"message": f"no model {body['model']}"}}
        if self.status is not None:
            status, extra, message = self.status(number, body)
            if status != 200:
                return status, extra, {"error": {"message": message}}
        if self.most_texts is not None and len(body["input"]) > self.most_texts:
            message = f"batch size {len(body['input'])} > maximum {self.most_texts}"
            return 413, {}, {"error": message, "error_type": "Validation"}
        answer = {"object": "list", "data": self.rows(body), "model": self.model,
                  "usage": {"prompt_tokens": 1, "total_tokens": len(body["input"])}}  # fmt: skip
        return 200, {}, answer if self.reply is None else self.reply(answer)

    def rows(self, body: dict) -> list[dict]:
        out = []
        for index, text in enumerate(body["input"]):
            vector = np.asarray(self.vector(body, text), "<f4")
            if body.get("encoding_format", "float") == "base64":
                value: Any = base64.b64encode(vector.tobytes()).decode()
            else:
                value = vector.tolist()
            out.append({"object": "embedding", "index": index, "embedding": value})
        return out[::-1] if self.shuffle else out


@contextmanager
def serving(service: Service):
    """The base URL of an endpoint that does so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with service.lock:
                number = len(service.bodies)
                service.bodies.append(body)
                service.headers.append(dict(self.headers))
                service.times.append(time.monotonic())
                service.busy += 1
                service.most_busy = max(service.most_busy, service.busy)
            time.sleep(service.delay)
            if self.path == "/v1/embeddings":
                status, headers, answer = service.respond(number, body, dict(self.headers))
            else:
                status, headers, answer = 404, {}, "no such page"
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            with service.lock:
                service.busy -= 1
            if status == 0:  # the line is cut
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
