"""Keys, sizes, slow and vanished clients, a full queue, request ids, and what the log says."""

from __future__ import annotations

import asyncio
import json

import pytest
from served_app import Served, error_of

from nvembed_jax.serve.keys import ApiKeys, read_keys

BODY = {"model": "nv", "input": "a", "input_type": "query"}


@pytest.fixture(scope="module")
def guarded(embedder):
    with Served({"nv": embedder}, api_keys=("first-key", "second-key")) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Basic first-key"},
        {"authorization": "first-key"},
        {"x-api-key": "first"},
        {"authorization": b"Bearer \xff\xfe"},
    ],
)
def test_without_a_key_everything_but_health_is_401(guarded, headers):
    paths = ["/v1/models", "/v1/metrics", "/v1/metadata", "/v1/version", "/docs", "/openapi.json"]
    for path in [*paths, "/none", "/v1/embeddings"]:
        response = guarded.get(path, headers=headers)
        error_of(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    error_of(guarded.post("/v1/embeddings", BODY, headers=headers), 401)
    error_of(guarded.post("/tokenize", BODY, headers=headers), 401)
    for path in ("/v1/health/live", "/v1/health/ready"):
        assert guarded.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first-key"},
        {"authorization": "bearer  second-key "},
        {"x-api-key": "second-key"},
    ],
)
def test_any_of_the_keys_lets_in(guarded, headers):
    assert guarded.post("/v1/embeddings", BODY, headers=headers).status_code == 200


def test_keys_are_read_and_stay_out_of_what_is_printed(tmp_path, guarded):
    file = tmp_path / "keys.txt"
    file.write_text("# of the team\nabc\n\n  def \n")
    assert read_keys(["k", "abc"], file) == ("k", "abc", "def")
    assert "first-key" not in repr(guarded.settings)
    assert "first-key" not in repr(vars(ApiKeys(["first-key"])))
    file.write_text("# none\n")
    with pytest.raises(ValueError, match="no API key in it"):
        read_keys([], file)
    for bad in ("", "a b", "ä", "a\nb"):
        with pytest.raises(ValueError, match="an API key is empty"):
            read_keys([bad], None)


class Connection:
    """A request whose body comes in parts, as a server hands it on."""

    def __init__(self, app, parts, headers=(), path="/v1/embeddings"):
        self._app, self._path = app, path
        self._headers = [(k.encode(), v.encode()) for k, v in headers]
        self.parts = iter(parts)
        self.taken = 0
        self.sent = []

    async def receive(self):
        for part in self.parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
                continue
            if part is None:
                return {"type": "http.disconnect"}
            self.taken += len(part)
            return {"type": "http.request", "body": part, "more_body": True}
        await asyncio.Event().wait()

    async def send(self, message):
        self.sent.append(message)

    async def run(self):
        scope = {
            "type": "http", "method": "POST", "path": self._path, "raw_path": b"",
            "query_string": b"", "headers": self._headers, "http_version": "1.1",
            "scheme": "http", "server": ("server", 80), "client": ("client", 1),
            "root_path": "", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await self._app(scope, self.receive, self.send)

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None


@pytest.fixture(scope="module")
def small(embedder):
    with Served({"nv": embedder}, max_body_bytes=1000, body_timeout_s=0.3) as running:
        yield running


def test_a_body_is_refused_as_soon_as_it_is_too_large(small):
    endless = Connection(small.app, (b"x" * 300 for _ in range(10**6)))
    small.run(endless.run())
    assert endless.status == 413
    assert endless.taken == 1200
    told = Connection(small.app, [b"x"], [("content-length", "1001")])
    small.run(told.run())
    assert (told.status, told.taken) == (413, 0)
    error = error_of(small.post("/v1/embeddings", content=b"x" * 1001), 413)
    assert "1,000 bytes" in error["message"]
    assert small.post("/v1/embeddings", BODY).status_code == 200


def test_bodies_of_all_requests_have_a_bound_together(small):
    slow = [Connection(small.app, [b"x" * 950, 0.2, b"x"]) for _ in range(20)]

    async def together():
        await asyncio.gather(*(one.run() for one in slow))

    small.run(together())
    assert [one.status for one in slow].count(429) == 4
    assert small.service.room.held == 0
    assert small.post("/v1/embeddings", BODY).status_code == 200


def test_a_slow_body_is_ended_and_holds_up_nobody(small):
    slow = Connection(small.app, [b"{", 0.1, b" ", 0.1, b" ", 0.1, b" ", 0.1, b" "])

    async def both():
        task = asyncio.create_task(slow.run())
        await asyncio.sleep(0.05)
        response = await small.client.post("/v1/embeddings", json=BODY)
        assert not task.done()
        await task
        return response

    assert small.run(both()).status_code == 200
    assert slow.status == 408


def test_a_client_that_goes_takes_its_texts_out_of_the_queue(embedder, log):
    with Served({"nv": embedder}, batch_tokens=64) as served:
        batcher, model = served.service._batcher, served.service.names.models[0]
        run, batches = model.run, []

        def counted(arrays):
            batches.append(arrays)
            return run(arrays)

        model.run = counted
        body = json.dumps({**BODY, "input": ["word " * 20] * 300}).encode()
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])
        gone = Connection(served.app, [])

        async def receive():
            for message in messages:
                return message
            while not batches:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        gone.receive = receive
        served.run(gone.run())
        assert gone.sent == []
        assert batcher.waiting_tokens == 0
        assert served.service._open == 0
        assert served.post("/v1/embeddings", BODY).status_code == 200
        assert len(batches) < 250
        text = served.get("/v1/metrics").text
        assert "nvembed_requests_cancelled_total 1.0" in text
    assert next(line["status"] for line in log() if line["event"] == "request") == 499


@pytest.mark.parametrize(
    ("limit", "texts", "count"),
    [({"max_queue_tokens": 100}, ["word " * 20] * 40, 14), ({"max_queue_requests": 3}, ["a"], 40)],
)
def test_a_full_queue_is_429_with_retry_after(embedder, limit, texts, count):
    with Served({"nv": embedder}, batch_tokens=64, **limit) as served:

        async def many():
            body = {**BODY, "input": texts}
            asked = (served.client.post("/v1/embeddings", json=body) for _ in range(count))
            return await asyncio.gather(*asked)

        responses = served.run(many())
        assert {response.status_code for response in responses} == {200, 429}
        full = next(r for r in responses if r.status_code == 429)
        assert error_of(full, 429)["code"] == "queue_full"
        assert 1 <= int(full.headers["retry-after"]) <= 30
        assert served.post("/v1/embeddings", BODY).status_code == 200


def test_request_ids_are_kept_if_they_are_sane(small):
    for sent in ("abc-1.2:3_4", "x" * 128):
        response = small.get("/v1/version", headers={"x-request-id": sent})
        assert response.headers["x-request-id"] == sent
    made = {
        small.get("/v1/version", headers={"x-request-id": sent}).headers["x-request-id"]
        for sent in ("", "a b", "x" * 129, '"}')
    }
    assert len(made) == 4
    assert all(len(id) == 32 for id in made)


def test_the_log_has_facts_and_neither_texts_nor_keys_nor_paths(guarded, log, monkeypatch):
    secret = "swordfish"
    key = {"authorization": "Bearer first-key", "x-request-id": "id-1"}
    guarded.post("/v1/embeddings", {**BODY, "input": [secret, "b"], "user": secret}, headers=key)
    guarded.get(f"/{secret}?q={secret}", headers=key)
    guarded.get("/v1/models", headers={"authorization": f"Bearer {secret}"})

    def broken(*args):
        raise ValueError(f"the text {secret} in /home/someone")

    monkeypatch.setattr("nvembed_jax.serve.service.tokenize", broken)
    guarded.post("/v1/embeddings", {**BODY, "input": secret}, headers=key)
    lines = log()
    text = json.dumps(lines)
    assert all(word not in text for word in (secret, "first-key", "/home", "httpx"))
    first = next(line for line in lines if line["event"] == "request")
    assert first["request_id"] == "id-1"
    assert (first["path"], first["status"]) == ("/v1/embeddings", 200)
    assert (first["model"], first["inputs"]) == ("nv", 2)
    assert {"time", "level", "logger", "tokens", "queue_ms", "device_ms", "ms"} <= set(first)
    failed = next(line for line in lines if line["event"] == "a request failed")
    assert failed["exception"] == "ValueError"
    assert any("service.py:embed" in place or "tokenize" in place for place in failed["where"])
