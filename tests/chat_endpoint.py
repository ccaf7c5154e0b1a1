"""A chat endpoint on this machine that answers like a language model with bad days."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ("amber", "bridge", "copper", "delta", "ember", "forest", "garnet", "harbor", "island",
         "jungle", "kernel", "lantern", "meadow", "nectar", "orchid", "prairie")  # fmt: skip


def number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def text(seed: str, count: int) -> str:
    return " ".join(f"{WORDS[number(f'{seed}{i}') % 16]}{number(f'{seed}{i}') % 997}"
                    for i in range(count))  # fmt: skip


def good_answer(prompt: str) -> str:
    """A task list or an example, as the prompt asks; the same prompt gives the same answer."""
    wanted = re.search(r"JSON list of (\d+)", prompt)
    if wanted:
        tasks = [f"Given {text(prompt + str(i), 3)}, find it." for i in range(int(wanted[1]))]
        return json.dumps(tasks)
    long_query = "the given text, of about" in prompt
    long_document = "a document of about" in prompt
    fields = {
        "user_query": text(prompt + "q", 40 if long_query else 6),
        "positive_document": text(prompt + "p", 50 if long_document else 5),
        "hard_negative_document": text(prompt + "n", 50 if long_document else 5),
    }
    return json.dumps(fields)


class Script:
    """What the endpoint does: (prompt, how often it was asked) -> answer, status or body."""

    def __init__(self, answer=good_answer, status=None, key=None, delay=0.0):
        self.answer, self.status, self.key, self.delay = answer, status, key, delay
        self.asked: dict[str, int] = {}
        self.times: dict[str, list[float]] = {}
        self.bodies: list[dict] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    @property
    def requests(self) -> int:
        return sum(self.asked.values())

    def respond(self, body: dict, authorization: str | None) -> tuple[int, dict, bytes]:
        prompt = body["messages"][0]["content"]
        with self.lock:
            turn = self.asked.get(prompt, 0)
            self.asked[prompt] = turn + 1
            self.times.setdefault(prompt, []).append(time.monotonic())
            self.bodies.append(body)
        if self.key is not None and authorization != f"Bearer {self.key}":
            return 401, {}, b'{"error": {"message": "Incorrect API key"}}'
        status, headers = self.status(prompt, turn) if self.status else (200, {})
        if status != 200:
            return status, headers, b'{"error": {"message": "not now"}}'
        answer = self.answer(prompt)
        if isinstance(answer, bytes):
            return 200, headers, answer
        message = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
        return 200, headers, json.dumps({**message, "usage": {"total_tokens": 7}}).encode()


@contextmanager
def serving(script: Script):
    """The base URL of an endpoint that follows the script."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                script.busy += 1
                script.most_busy = max(script.most_busy, script.busy)
            time.sleep(script.delay)
            status, headers, content = script.respond(body, self.headers["Authorization"])
            with script.lock:
                script.busy -= 1
            if self.path != "/v1/chat/completions":
                status, content = 404, b"no such page"
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
