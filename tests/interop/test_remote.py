"""Models behind an endpoint: what is sent, retried, refused, kept, and scored."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from embeddings_endpoint import WIDTH, Service, made_vector, serving

from nvembed_jax.interop import RemoteEmbedder, is_remote, make_endpoint, open_model, parse_spec
from nvembed_jax.interop.endpoint import FLAVORS

TEXTS = [f"text {i} {'x' * (i % 7)}" for i in range(23)]


@pytest.fixture(autouse=True)
def cache_at(tmp_path, monkeypatch):
    """The cache in a folder of the test, and no keys from outside."""
    monkeypatch.setenv("NVEMBED_EMBEDDING_CACHE", str(tmp_path / "cache"))
    for flavor in FLAVORS.values():
        monkeypatch.delenv(flavor.get("api_key_env", "NVEMBED_REMOTE_API_KEY"), raising=False)
    monkeypatch.delenv("NVEMBED_REMOTE_API_KEY", raising=False)
    return tmp_path / "cache"


def remote(url: str, flavor: str = "openai", **options) -> RemoteEmbedder:
    options = {"backoff_s": 0.01, **options}
    return open_model(f"{flavor}:{url}#the-model", **options)


def expected(texts: list[str], **body) -> np.ndarray:
    rows = np.stack([made_vector(body, text) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def failing(times: int, status: int, headers: dict | None = None, message: str = "not now"):
    """The first requests fail, the others do not."""
    return lambda number, body: (status if number < times else 200, headers or {}, message)


def test_embeddings_come_in_the_order_of_the_texts():
    service = Service(shuffle=True)
    with serving(service) as url, remote(url, texts_a_request=4) as model:
        np.testing.assert_allclose(model.encode(TEXTS), expected(TEXTS), atol=1e-6)
        assert model.encode(TEXTS[3]).shape == (WIDTH,)
        assert model.encode([]).shape == (0, WIDTH)
        raw = model.encode(TEXTS[:2], normalize=False)
        np.testing.assert_array_equal(raw, [made_vector({}, text) for text in TEXTS[:2]])
        assert model.embed_dim == WIDTH
        np.testing.assert_allclose(model.similarity(raw, raw).diagonal(), 1, atol=1e-6)


def test_batches_keep_to_count_and_characters():
    service = Service()
    texts = ["a" * n for n in (30, 20, 19, 10, 5, 4, 3, 2, 1)]
    options = {"texts_a_request": 3, "chars_a_request": 50, "concurrency": 1}
    with serving(service) as url, remote(url, **options) as model:
        model.encode(texts)
    sizes = [[len(text) for text in body["input"]] for body in service.bodies[1:]]
    assert sizes == [[30, 20], [19, 10, 5], [4, 3, 2], [1]]
    assert all(body["model"] == "the-model" for body in service.bodies)


def test_several_requests_are_in_flight_but_not_more():
    service = Service(delay=0.03)
    with serving(service) as url, remote(url, texts_a_request=1, concurrency=3) as model:
        model.encode(TEXTS[:12])
    assert 2 <= service.most_busy <= 3


def test_float_and_base64_answers_are_the_same():
    service = Service()
    with serving(service) as url:
        rows = [
            remote(url, encoding_format=name, cache=False).encode(TEXTS)
            for name in ("float", "base64")
        ]
    assert {body["encoding_format"] for body in service.bodies} == {"float", "base64"}
    np.testing.assert_array_equal(*rows)


def test_answers_without_index_are_in_order():
    def reply(answer):
        for row in answer["data"]:
            del row["index"]
        return answer

    with serving(Service(reply=reply)) as url, remote(url) as model:
        np.testing.assert_allclose(model.encode(TEXTS), expected(TEXTS), atol=1e-6)


def test_nim_gets_input_types_and_truncation():
    service = Service()
    with serving(service) as url, remote(url, "nim", cache=False) as model:
        rows = [model.encode_query(TEXTS), model.encode_document(TEXTS), model.encode(TEXTS)]
        assert not model.config.text.query_template
    assert [body["input_type"] for body in service.bodies] == ["query", "passage", "query"]
    assert {body["truncate"] for body in service.bodies} == {"END"}
    np.testing.assert_allclose(rows[1], expected(TEXTS, input_type="passage"), atol=1e-6)
    np.testing.assert_array_equal(rows[0], rows[2])
    assert np.abs(rows[0] - rows[1]).max() > 0.1


def test_openai_gets_nothing_that_it_does_not_know():
    service = Service()
    with serving(service) as url, remote(url, dimensions=4) as model:
        assert model.encode_query("a").shape == (4,)
        assert model.embed_dim == 4
    for body in service.bodies:
        assert set(body) == {"model", "input", "encoding_format", "dimensions"}


def test_vllm_and_extra_fields_are_sent():
    service = Service()
    with serving(service) as url:
        remote(url, "vllm", cache=False).encode("a")
        open_model(f"tei:{url}#the-model?body.priority=3&body.tag=x y&cache=0").encode("a")
    assert service.bodies[0]["truncate_prompt_tokens"] == -1
    assert (service.bodies[1]["priority"], service.bodies[1]["tag"]) == (3, "x y")


def test_instructions_go_into_the_text():
    service, template = Service(), "Instruct: {task}\nQuery: "
    with serving(service) as url:
        options = {"passage_prefix": "passage: ", "query_prefix": "query: ", "cache": False}
        model = remote(url, query_template=template, symmetric_prefix="text: ", **options)
        for rows in (model.encode_query("a", task="Find {x}"), model.encode("a", task="Find {x}")):
            np.testing.assert_allclose(rows, expected(["Instruct: Find {x}\nQuery: a"])[0], 1e-5)
        model.encode_query("a")
        model.encode_document("a")
        model.encode("a")
        model.encode("a", prompt="raw: ")
    assert service.texts[2:] == ["query: a", "passage: a", "text: a", "raw: a"]
    assert model.config.text.query_template == template


def test_task_of_our_own_server_goes_into_its_field():
    service = Service()
    with serving(service) as url, remote(url, "nvembed", cache=False) as model:
        model.encode_query("a", task="Find it")
        model.encode_document("a")
        assert model.config.text.query_template is not None
    assert [body.get("task") for body in service.bodies] == ["Find it", None]
    assert service.texts == ["a", "a"]


def test_blank_and_long_texts_are_sent_as_said():
    service = Service()
    with serving(service) as url:
        remote(url, cache=False, chars_a_text=3).encode(["", "abcdef", " \n"])
        remote(url, "tei", cache=False).encode([""])
    assert sorted(service.bodies[0]["input"]) == [" ", "abc"]
    assert service.bodies[1]["input"] == [""]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 0])
def test_passing_failures_are_retried(status):
    service = Service(status=failing(3, status))
    with serving(service) as url, remote(url) as model:
        np.testing.assert_allclose(model.encode(TEXTS), expected(TEXTS), atol=1e-6)
        assert model.counts["retries"] == 3
        assert model.counts["tokens"] == len(TEXTS) + 1


@pytest.mark.parametrize("headers", [{"Retry-After": "0.3"}, {"retry-after-ms": "300"}])
def test_retry_after_holds_for_all_requests(headers):
    service = Service(status=failing(2, 429, headers))
    with serving(service) as url, remote(url, texts_a_request=1, cache=False) as model:
        start = time.monotonic()
        model.encode(TEXTS[:8])
    assert time.monotonic() - start > 0.28
    refused = [t for t in service.times if t - service.times[0] < 0.25]
    assert len(refused) <= 4


def test_waiting_for_hours_or_without_money_ends_at_once():
    long, poor = (
        failing(99, 429, {"Retry-After": "7200"}),
        failing(99, 429, {}, "insufficient_quota"),
    )
    with (
        serving(Service(status=long)) as url,
        pytest.raises(ConnectionError, match="7,200 seconds"),
    ):
        remote(url).encode("a")
    with (
        serving(Service(status=poor)) as url,
        pytest.raises(ValueError, match="insufficient_quota"),
    ):
        remote(url).encode("a")


def test_failures_that_stay_end_with_their_reason():
    reason = r"after 3 tries \(HTTP 503: .*run the same"
    with (
        serving(Service(status=failing(99, 503))) as url,
        pytest.raises(ConnectionError, match=reason),
    ):
        remote(url, max_retries=2).encode("a")
    with pytest.raises(ConnectionError, match=r"after 3 tries \(ConnectError"):
        remote(url, max_retries=6).encode("a")


def test_batches_too_large_for_the_server_are_halved_once():
    service = Service(most_texts=5)
    options = {"texts_a_request": 16, "concurrency": 1, "cache": False}
    with serving(service) as url, remote(url, **options) as model:
        np.testing.assert_allclose(model.encode(TEXTS), expected(TEXTS), atol=1e-6)
    assert [len(body["input"]) for body in service.bodies[:4]] == [16, 8, 4, 4]
    assert all(len(body["input"]) <= 4 for body in service.bodies[2:])


def test_text_too_long_for_the_server_is_named():
    def status(number, body):
        long = any(len(text) > 100 for text in body["input"])
        return 400 if long else 200, {}, "Input length 200 exceeds maximum allowed token size 128"

    reason = r"400: .*token size 128.*200 characters .*'yyyy"
    with serving(Service(status=status)) as url, pytest.raises(ValueError, match=reason):
        remote(url).encode([*TEXTS, "y" * 200])


def test_refusals_say_what_to_mend(monkeypatch):
    service = Service(key="secret-key")
    with serving(service) as url:
        with pytest.raises(ValueError, match=r"401: .*set the API key in \$NVEMBED_REMOTE_API_KEY"):
            remote(url).encode("a")
        monkeypatch.setenv("MY_KEY", "wrong-key")
        with pytest.raises(ValueError, match=r"check the API key in \$MY_KEY") as error:
            remote(url, api_key_env="MY_KEY").encode("a")
        assert "wrong-key" not in str(error.value)
        monkeypatch.setenv("MY_KEY", "secret-key")
        assert remote(url, api_key_env="MY_KEY").encode("a").shape == (WIDTH,)
        with pytest.raises(ValueError, match=r"404: .*no model other.*name 'other'"):
            open_model(f"tei:{url}#other", api_key_env="MY_KEY").encode("a")
        with pytest.raises(ValueError, match=r"404: .*check the URL \(up to /v1\)"):
            remote(url + "/v1", api_key_env="MY_KEY").encode("a")
        with pytest.raises(ValueError, match=r"needs an API key: set \$NO_KEY"):
            remote(url, api_key_env="NO_KEY")
    assert len(service.bodies) == 2 + 2 + 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (lambda a: a | {"data": a["data"][:-1]}, "23 texts were sent; 22 embeddings came"),
        (lambda a: {"embeddings": []}, "holds no embeddings"),
        (lambda a: b"<html>", "holds no embeddings"),
        (lambda a: [1], "holds no embeddings"),
        (lambda a: a | {"data": [r | {"index": 0} for r in a["data"]]}, "each of 0 to 22 once"),
        (lambda a: a | {"data": [r | {"embedding": [1, float("nan")]} for r in a["data"]]}, "NaN"),
        (lambda a: a | {"data": [r | {"embedding": [1e300]} for r in a["data"]]}, "infinity"),
        (lambda a: a | {"data": [r | {"embedding": []} for r in a["data"]]}, "no or of several"),
        (lambda a: a | {"data": [r | {"embedding": "AAA"} for r in a["data"]]}, "base64"),
        (lambda a: a | {"data": [r | {"embedding": None} for r in a["data"]]}, "no list"),
        (lambda a: a | {"data": [r | {"embedding": [0.1] * (1 + r["index"])} for r in a["data"]]},
         "of several widths"),
    ],
)  # fmt: skip
def test_bad_answers_are_refused(reply, message):
    with serving(Service(reply=reply)) as url, pytest.raises(ValueError, match=message):
        remote(url, cache=False).encode(TEXTS)


def test_another_width_than_asked_for_or_before_is_refused():
    service = Service(vector=lambda body, text: np.ones(4 if text == "odd" else 6))
    with serving(service) as url:
        with pytest.raises(ValueError, match="width 6 came; asked for: 3"):
            remote(url, dimensions=3, cache=False).encode("a")
        with remote(url, cache=False) as model:
            model.encode("a")
            with pytest.raises(ValueError, match="width 4 came; got before: 6"):
                model.encode("odd")


def test_cached_embeddings_are_not_asked_for_again(cache_at):
    service = Service()
    with serving(service) as url:
        with remote(url) as model:
            first = model.encode(TEXTS)
            model.encode_document(TEXTS[:5])  # the same to a server without input types
        asked = len(service.texts)
        assert asked == len(TEXTS) + 1  # and the sentence that tells the model
        with remote(url, concurrency=1, timeout_s=9.0) as model:
            np.testing.assert_array_equal(model.encode([*TEXTS, TEXTS[0]])[:-1], first)
            assert model.counts["requests"] == 0
    assert len(service.texts) == asked
    assert [p.suffix for p in cache_at.iterdir()] == [".sqlite"]


def test_equal_texts_are_sent_once():
    service = Service()
    with serving(service) as url, remote(url, cache=False) as model:
        rows = model.encode(["a", "b", "a", "a"])
    assert sorted(service.texts) == ["a", "b"]
    np.testing.assert_array_equal(rows[0], rows[3])


def test_what_changes_embeddings_has_its_own_fingerprint_and_cache(monkeypatch):
    base = {"flavor": "nim", "model": "m", "base_url": "http://one/v1"}
    changes = [
        {"model": "n"}, {"base_url": "http://two/v1"}, {"dimensions": 4}, {"truncate": "NONE"},
        {"query_template": "{task}: "}, {"query_prefix": "q"}, {"passage_prefix": "p"},
        {"symmetric_prefix": "s"}, {"symmetric": "passage"}, {"revision": "2"},
        {"chars_a_text": 9}, {"extra_body": {"a": 1}}, {"flavor": "tei"}, {"send_task": True},
    ]  # fmt: skip
    prints = [make_endpoint(**base | change).fingerprint for change in [{}, *changes]]
    assert len(set(prints)) == len(prints)
    monkeypatch.setenv("K", "a-key")
    same = {"texts_a_request": 2, "concurrency": 9, "timeout_s": 1.0, "api_key_env": "K"}
    assert make_endpoint(**base, **same).fingerprint == prints[0]
    assert "a-key" not in json.dumps(make_endpoint(**base, **same).identity)


def test_key_is_in_no_log_and_no_file(monkeypatch, caplog, cache_at):
    monkeypatch.setenv("NVEMBED_REMOTE_API_KEY", "very-secret")
    caplog.set_level(logging.DEBUG)
    service = Service(key="very-secret", status=failing(1, 500))
    with serving(service) as url, remote(url) as model:
        model.encode(TEXTS)
        assert "very-secret" not in repr(model.endpoint) + model.fingerprint + caplog.text
        assert all(b"very-secret" not in path.read_bytes() for path in cache_at.iterdir())
    assert service.headers[0]["Authorization"] == "Bearer very-secret"


def test_keys_of_public_services_go_nowhere_else(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "public")
    service = Service()
    with serving(service) as url:
        remote(url).encode("a")
        assert "Authorization" not in service.headers[0]
        remote(url, api_key_env="OPENAI_API_KEY", api_key_header="api-key", cache=False).encode("a")
        assert service.headers[-1]["api-key"] == "public"
    assert make_endpoint("openai", "m").api_key() == "public"
    with pytest.raises(ValueError, match=r"generativelanguage.* set \$GEMINI_API_KEY"):
        open_model("gemini:gemini-embedding-001")


def test_stopped_run_goes_on_where_it_was():
    def status(number, body):
        return 422 if "bad" in body["input"] and strict else 200, {}, "a bad text"

    service, strict = Service(status=status, delay=0.01), True
    texts = [*TEXTS, "bad"]  # the shortest: asked for last
    options = {"texts_a_request": 2, "concurrency": 2}
    with serving(service) as url:
        with remote(url, **options) as model, pytest.raises(ValueError, match="a bad text"):
            model.encode(texts)
        strict, before = False, len(service.texts)
        with remote(url, **options) as model:
            np.testing.assert_allclose(model.encode(texts), expected(texts), atol=1e-6)
    again = service.texts[before + 1 :]  # after the sentence that tells the model
    assert "bad" in again
    assert len(again) <= 2  # its neighbour in the request that failed


def test_embeddings_outlive_a_killed_process(cache_at):
    script = (
        "import os, signal, sys\n"
        "from nvembed_jax.interop import open_model\n"
        "model = open_model(sys.argv[1], texts_a_request=1, concurrency=1)\n"
        "model.encode([f'text {i}' for i in range(5)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    service = Service()
    with serving(service) as url:
        spec = f"openai:{url}#the-model"
        done = subprocess.run([sys.executable, "-c", script, spec], check=False)
        assert done.returncode == -9
        asked = len(service.bodies)
        with open_model(spec) as model:
            model.encode([f"text {i}" for i in range(5)])
    assert len(service.bodies) == asked == 6


def test_several_processes_share_a_cache():
    script = (
        "import sys\n"
        "from nvembed_jax.interop import open_model\n"
        "model = open_model(sys.argv[1], texts_a_request=2)\n"
        "model.encode([f'text {i}' for i in range(60)])\n"
    )
    service = Service()
    with serving(service) as url:
        spec = f"openai:{url}#the-model"
        running = [subprocess.Popen([sys.executable, "-c", script, spec]) for _ in range(3)]
        assert [process.wait() for process in running] == [0, 0, 0]
        asked = len(service.bodies)
        texts = [f"text {i}" for i in range(60)]
        with open_model(spec) as model:
            np.testing.assert_allclose(model.encode(texts), expected(texts), atol=1e-6)
            assert (
                sqlite3.connect(model.cache_path).execute("PRAGMA integrity_check").fetchone()[0]
                == "ok"
            )
    assert len(service.bodies) == asked


def test_another_model_under_the_same_name_is_noticed():
    service = Service()
    with serving(service) as url:
        with remote(url) as model:
            model.encode(TEXTS)
        service.vector = lambda body, text: -made_vector(body, text)
        with (
            remote(url) as model,
            pytest.raises(ValueError, match=r"another model answers .*revis"),
        ):
            model.encode([*TEXTS, "new"])
        with remote(url, revision="2") as model:
            np.testing.assert_allclose(model.encode(TEXTS), -expected(TEXTS), atol=1e-6)
        service.vector = lambda body, text: made_vector(body, text) + 1e-3  # it is a service
        with remote(url) as model:
            model.encode([*TEXTS, "new"])


def test_broken_cache_is_named(cache_at):
    with serving(Service()) as url:
        model = remote(url)
        assert model.cache_path is not None
        cache_at.mkdir()
        model.cache_path.write_bytes(b"no database at all, but long enough" * 20)
        with pytest.raises(ValueError, match=r"\.sqlite: not a cache of embeddings .*remove it"):
            model.encode("a")
        model.cache_path.unlink()
        cache_at.rmdir()
        cache_at.write_text("")
        with pytest.raises(OSError, match="cache"):
            model.encode("a")


def test_matryoshka_and_codes_are_as_for_local_models():
    with serving(Service()) as url, remote(url) as model:
        cut = model.encode(TEXTS, truncate_dim=4)
        assert model.encode(TEXTS, precision="ubinary").shape == (len(TEXTS), 1)
    raw = np.stack([made_vector({}, text)[:4] for text in TEXTS])
    np.testing.assert_allclose(cut, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_calls_that_a_remote_model_cannot_do_are_refused():
    model = open_model("tei:http://localhost:1/v1")
    for call, message in (
        (lambda: model.encode("a", prompt_name="query"), "no named prompts"),
        (lambda: model.encode("a", prompt="p", task="t"), "contradict"),
        (lambda: model.encode("a", task="t"), "without a query_template"),
        (lambda: model.encode_query("a", examples=[("a", "b")]), "no in-context examples"),
        (lambda: model.encode("a", max_length=5), "chars_a_text"),
        (lambda: model.encode("a", batch_tokens=5), "texts_a_request"),
        (lambda: model.encode("a", precision="int3"), "precision must be"),
        (lambda: model.encode(["a", 3]), "must be a string; got int"),
        (lambda: open_model("tei:http://localhost:1/v1", dtype="float32"), "dtype: for local"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_specs_are_read():
    assert parse_spec("openai:text-embedding-3-small") == (
        "openai", "text-embedding-3-small", None, {},
    )  # fmt: skip
    spec = (
        "vllm:https://host:8000/v1#org/model?dimensions=256&query_template=Do%3A {task}\\n"
        "&timeout_s=2.5&input_types=true&body.x=[1]"
    )
    assert parse_spec(spec) == (
        "vllm", "org/model", "https://host:8000/v1",
        {"dimensions": 256, "query_template": "Do: {task}\n", "timeout_s": 2.5,
         "input_types": True, "extra_body": {"x": [1]}},
    )  # fmt: skip
    assert parse_spec("tei:http://localhost:8080/v1")[1:3] == ("", "http://localhost:8080/v1")
    assert [is_remote(name) for name in ("nim:x", "model", "./openai:x", None, "C:\\x")] == [
        True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openai:", "no model named: expected openai:https://api.openai.com/v1#MODEL"),
        ("vllm:model", "vllm has no public URL"),
        ("vllm:http://host/v1", "no model named"),
        ("tei:ftp://host/v1#m", "must be http"),
        ("tei:http://u:p@host/v1#m", "must not hold a password"),
        ("tei:http://host/v1/embeddings#m", "ends before /embeddings"),
        ("tei:http://host/v1#m?dimension=3", "did you mean 'dimensions'"),
        ("tei:http://host/v1#m?dimensions=x", "takes a whole number; got 'x'"),
        ("tei:http://host/v1#m?input_types=maybe", "takes true or false"),
        ("tei:http://host/v1#m?dimensions", "has no value"),
        ("tei:http://host/v1#m?dimensions=0", "at least 1"),
        ("tei:http://host/v1#m?timeout_s=0", "timeout_s over 0"),
        ("nim:m?truncate=MIDDLE&api_key_env=K", "truncate must be one of"),
        ("tei:http://host/v1#m?query_template=q", "needs a {task} slot"),
    ],
)
def test_specs_that_are_wrong_say_how(spec, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("(", r"\(")):
        open_model(spec)


def test_unknown_flavour_names_the_nearest():
    with pytest.raises(ValueError, match="unknown flavour 'openapi'; did you mean 'openai'"):
        make_endpoint("openapi", "m")
