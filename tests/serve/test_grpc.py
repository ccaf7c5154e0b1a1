"""KServe's protocol over gRPC: the numbers on the wire, answers, statuses, keys and limits."""

from __future__ import annotations

import asyncio
import json
import struct

import grpc
import numpy as np
import pytest
from served_app import Served, make_embedder

from nvembed_jax.serve import kserve
from nvembed_jax.serve.errors import ServeError
from nvembed_jax.serve.models import ModelNames, RpcNames, ServedModel
from nvembed_jax.serve.proto import message_classes
from nvembed_jax.serve.rpc import RpcServer

TEXTS = ["a", "the second text is somewhat longer", "", "Zürich 東京 🙂"]
KEY = (("authorization", "Bearer first-key"),)
OK = grpc.StatusCode.OK
BAD = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


class Called:
    """The gRPC port of a served application, and a channel to it."""

    def __init__(self, served: Served):
        self.served = served
        self.server = RpcServer(served.service, "127.0.0.1", 0)

    def __enter__(self) -> Called:
        async def start():
            await self.server.start()
            options = [("grpc.max_receive_message_length", -1)]
            self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}", options)

        self.served.run(start())
        return self

    def __exit__(self, *error) -> None:
        async def stop():
            await self.channel.close()
            await self.server.stop(1)

        self.served.run(stop())

    def begin(self, method: str, content: bytes, metadata=()):
        """The call itself; to be used on the loop."""
        return self.channel.unary_unary(f"/{kserve.SERVICE}/{method}")(content, metadata=metadata)

    def call(self, method: str, content: bytes = b"", metadata=()):
        """(status, its message or the answer, trailing metadata)."""

        async def work():
            try:
                call = self.begin(method, content, metadata)
                return OK, kserve.messages[f"{method}Response"].FromString(await call), {}
            except grpc.aio.AioRpcError as error:
                return error.code(), error.details(), dict(error.trailing_metadata())

        return self.served.run(work())

    def infer(self, model: str, texts=TEXTS, metadata=(), **fields):
        return self.call("ModelInfer", request(model, texts, **fields), metadata)


def raw(texts) -> bytes:
    values = [text if isinstance(text, bytes) else text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def request(
    model: str, texts=TEXTS, *, shape=None, outputs=(), is_raw=True, id="", version="", **parameters
) -> bytes:
    message = kserve.messages["ModelInferRequest"](model_name=model, model_version=version, id=id)
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=shape or (len(texts), 1))
    if is_raw:
        message.raw_input_contents.append(raw(texts))
    else:
        tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    for name in outputs:
        message.outputs.add(name=name)
    fields = {str: "string_param", bool: "bool_param", int: "int64_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(message.parameters[name], fields[type(value)], value)
    return message.SerializeToString()


def array(answer, name: str) -> np.ndarray:
    types = {"FP32": "<f4", "INT32": "<i4", "INT8": "i1", "UINT8": "u1"}
    index = [output.name for output in answer.outputs].index(name)
    output = answer.outputs[index]
    values = np.frombuffer(answer.raw_output_contents[index], types[output.datatype])
    return values.reshape(tuple(output.shape))


@pytest.fixture(scope="module")
def called(served):
    with Called(served) as running:
        yield running


def test_a_request_is_on_the_wire_as_the_protocol_has_it():
    parameter = b'"\x11\n\x08truncate\x12\x05\x1a\x03END'
    tensor = b"*\x11\n\x04text\x12\x05BYTES\x1a\x02\x01\x01"
    wire = b"\n\x01m\x1a\x017" + parameter + tensor + b":\x05\x01\x00\x00\x00a"
    assert request("m", ["a"], id="7", truncate="END") == wire
    message = kserve.parse("ModelInferRequest", wire)
    asked = kserve.texts_request(message, "m", 1)
    assert (asked.texts, asked.truncate) == (["a"], "END")


def test_a_response_is_on_the_wire_as_the_protocol_has_it():
    message = kserve.messages["ModelInferResponse"](model_name="m", model_version="1", id="7")
    message.outputs.add(name="o", datatype="INT8", shape=(1,))
    message.raw_output_contents.append(b"\xff")
    wire = b"\n\x01m\x12\x011\x1a\x017*\x0c\n\x01o\x12\x04INT8\x1a\x01\x012\x01\xff"
    assert message.SerializeToString() == wire
    metadata = kserve.model_metadata("m", 64).SerializeToString()
    any_rows = b"\x1a" + b"\x0a" + b"\xff" * 9 + b"\x01"
    assert b"\n\x0btoken_count\x12\x05INT32" + any_rows in metadata


def test_what_is_no_plain_message_is_refused_in_a_proto_file():
    with pytest.raises(ValueError, match="got 'import'"):
        message_classes('import "x.proto";', "x")
    with pytest.raises(ValueError, match="expected ';'"):
        message_classes("package p; message A { string a = 1 [deprecated = true]; }", "x")
    with pytest.raises(ValueError, match="does not end"):
        message_classes("package p; message A {", "x")


@pytest.mark.parametrize("is_raw", [True, False])
def test_embeddings_equal_the_embedder(called, embedder, symmetric, is_raw):
    code, answer, _ = called.infer("nv", is_raw=is_raw, input_type="query", id="some-id")
    assert code == OK, answer
    assert (answer.model_name, answer.model_version, answer.id) == ("nv", "1", "some-id")
    assert [output.name for output in answer.outputs] == ["token_count", "embeddings"]
    np.testing.assert_allclose(array(answer, "embeddings"), embedder.encode_query(TEXTS), atol=1e-6)
    _, answer, _ = called.infer("acme_sym", is_raw=is_raw, shape=(len(TEXTS),))
    np.testing.assert_allclose(
        array(answer, "embeddings"), symmetric.encode_document(TEXTS), atol=1e-6
    )
    counts = [len(e.input_ids) for e in symmetric.tokenizer.encode(TEXTS)]
    assert array(answer, "token_count").tolist() == counts


def test_both_interfaces_give_the_same_bits(called, served):
    answer = served.embed("acme/sym", TEXTS).json()
    expected = np.array([item["embedding"] for item in answer["data"]], np.float32)
    got = array(called.infer("acme_sym")[1], "embeddings")
    np.testing.assert_allclose(got, expected, atol=1e-7)


def test_parameters_do_what_fields_do_over_http(called, embedder, symmetric):
    task = "Given a claim, find what refutes it"
    _, answer, _ = called.infer("nv_query", task=task, input_type="passage", unknown=3)
    expected = embedder.encode_query(TEXTS, task=task)
    np.testing.assert_allclose(array(answer, "embeddings"), expected, atol=1e-6)
    _, answer, _ = called.infer("nv", ["word " * 200], truncate="END", input_type="passage")
    assert array(answer, "token_count").tolist() == [64]
    for name in ("int8", "uint8", "binary", "ubinary"):
        _, answer, _ = called.infer("acme_sym", embedding_type=name, dimensions=16)
        got = array(answer, "embeddings")
        expected = symmetric.encode_document(TEXTS, precision=name, truncate_dim=16)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert (got != expected).mean() < 0.01


def test_only_the_outputs_asked_for_come_back_in_their_order(called):
    _, answer, _ = called.infer("acme_sym", outputs=["embeddings", "token_count"])
    assert [output.name for output in answer.outputs] == ["embeddings", "token_count"]
    _, answer, _ = called.infer("acme_sym", outputs=["token_count"])
    assert len(answer.outputs) == len(answer.raw_output_contents) == 1


@pytest.mark.parametrize(
    ("fields", "status", "part"),
    [
        ({"model": "none"}, NOT_FOUND, "this server has: nv, acme_sym"),
        ({"version": "2"}, NOT_FOUND, "no such version"),
        ({}, BAD, "input_type is required"),
        ({"input_type": "document"}, BAD, "input_type"),
        ({"input_type": 3}, BAD, "input_type"),
        ({"input_type": "query", "dimensions": "16"}, BAD, "dimensions"),
        ({"input_type": "query", "dimensions": 16.0}, BAD, "dimensions"),
        ({"input_type": "query", "dimensions": 32}, BAD, "--allow-dimensions"),
        ({"input_type": "query", "texts": ["word " * 500]}, BAD, "exceeds maximum allowed token"),
        ({"texts": []}, BAD, "at least one"),
        ({"texts": ["a"] * 2049}, BAD, "2048"),
        ({"texts": ["a"] * 2049, "is_raw": False}, BAD, "expected at most 2048"),
        ({"texts": [b"\xff"]}, BAD, "text[0] is not valid UTF-8"),
        ({"texts": [b"\xed\xa0\x80"]}, BAD, "text[0] is not valid UTF-8"),
        ({"shape": (2, 2)}, BAD, "[B, 1]"),
        ({"shape": (9, 1)}, BAD, "holds 4 values; its shape says 9"),
        ({"shape": (-1, 1)}, BAD, "its shape says -1"),
        ({"outputs": ["scores"]}, BAD, "token_count, embeddings"),
    ],
)
def test_wrong_requests_are_told(called, fields, status, part):
    code, message, _ = called.infer(**{"model": "nv", **fields})
    assert (code, part in message) == (status, True), message


def test_broken_messages_are_told(called):
    def changed(change) -> bytes:
        message = kserve.messages["ModelInferRequest"].FromString(request("acme_sym", ["a"]))
        change(message)
        return message.SerializeToString()

    broken = [
        b"\xff\xff",
        b"\n\x01\xff",
        changed(lambda m: m.inputs.add(name="more")),
        changed(lambda m: m.ClearField("inputs")),
        changed(lambda m: m.ClearField("raw_input_contents")),
        changed(lambda m: setattr(m.inputs[0], "datatype", "FP32")),
        changed(lambda m: m.raw_input_contents.append(b"")),
        changed(lambda m: m.inputs[0].contents.bytes_contents.append(b"a")),
        changed(lambda m: m.raw_input_contents.__setitem__(0, b"\x05\0\0\0a")),
        changed(lambda m: m.raw_input_contents.__setitem__(0, b"\x01\0")),
        changed(lambda m: m.raw_input_contents.__setitem__(0, b"\xff\xff\xff\xff")),
    ]
    for content in broken:
        assert called.call("ModelInfer", content)[0] == BAD, content
    code, _, _ = called.call("ModelInfer", changed(lambda m: m.parameters["truncate"]))
    assert code == OK  # a parameter without a value is none


def test_health_and_metadata(called):
    assert called.call("ServerLive")[1].live
    assert called.call("ServerReady")[1].ready
    assert called.call("ServerMetadata")[1].name == "nvembed"
    named = kserve.messages["ModelReadyRequest"]
    assert called.call("ModelReady", named(name="acme_sym_query").SerializeToString())[1].ready
    assert called.call("ModelReady", named(name="x").SerializeToString())[0] == NOT_FOUND
    old = named(name="nv", version="0").SerializeToString()
    assert called.call("ModelMetadata", old)[0] == NOT_FOUND
    asked = named(name="nv", version="1").SerializeToString()
    facts = called.call("ModelMetadata", asked)[1]
    assert (facts.name, list(facts.versions)) == ("nv", ["1"])
    tensors = [(t.name, t.datatype, list(t.shape)) for t in (*facts.inputs, *facts.outputs)]
    assert tensors == [
        ("text", "BYTES", [-1, 1]), ("token_count", "INT32", [-1]), ("embeddings", "FP32", [-1, 64])
    ]  # fmt: skip
    unknown = called.begin("ModelStreamInfer", b"")
    assert called.served.run(unknown.code()) == grpc.StatusCode.UNIMPLEMENTED


def test_names_are_lower_case_with_underscores(embedder):
    names = RpcNames(ModelNames([ServedModel("nvidia/NV-Embed-v2", embedder)]))
    http = "nvidia/NV-Embed-v2"
    assert names.find("nvidia_nv_embed_v2") == names.find(http) == http
    assert names.find("nvidia_nv_embed_v2_query") == f"{http}-query"
    assert names.find("nv_embed_v2_passage") == "NV-Embed-v2-passage"
    with pytest.raises(ServeError, match="nvidia_nv_embed_v2"):
        names.find("NVIDIA_NV_EMBED_V2")
    with pytest.raises(ValueError, match="two models are named 'a_b' over gRPC"):
        RpcNames(ModelNames([ServedModel(id, embedder) for id in ("a-b", "A.b")]))


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "first-key"),)]
)
def test_without_a_key_everything_but_health_is_refused(guarded, metadata):
    for method in ("ModelInfer", "ModelReady", "ModelMetadata", "ServerMetadata"):
        code, message, _ = guarded.call(method, b"", metadata)
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert "Bearer KEY" in message
    assert guarded.call("ServerLive", b"", metadata)[1].live
    assert guarded.call("ServerReady", b"", metadata)[1].ready


@pytest.fixture(scope="module")
def guarded(embedder):
    settings = {"api_keys": ("first-key",), "max_body_bytes": 2000}
    with Served({"nv": embedder}, **settings) as served, Called(served) as running:
        yield running


def test_any_key_lets_in_and_too_large_messages_do_not_come_in(guarded):
    assert guarded.infer("nv_query", metadata=KEY)[0] == OK
    code, _, _ = guarded.infer("nv_query", ["word " * 500], metadata=KEY)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    guarded.served.service.room.held = guarded.served.service.room.most
    code, _, trailing = guarded.infer("nv_query", metadata=KEY)
    guarded.served.service.room.held = 0
    assert (code, trailing["retry-after"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "1")


def test_the_log_and_the_metrics_have_calls_and_no_texts(guarded, log, monkeypatch):
    secret = "swordfish"
    sent = (*KEY, ("x-request-id", "id-7"))
    guarded.infer("nv_query", [secret, "b"], metadata=sent)
    guarded.infer(secret, [secret], metadata=KEY)
    guarded.infer("nv", [secret], metadata=(("authorization", f"Bearer {secret}"),))

    def broken(*args):
        raise ValueError(f"the text {secret} in /home/someone")

    monkeypatch.setattr("nvembed_jax.serve.service.tokenize", broken)
    code, message, _ = guarded.infer("nv_query", [secret], metadata=KEY)
    assert (code, secret in message) == (grpc.StatusCode.INTERNAL, False)
    lines = log()
    told = json.dumps(lines)
    assert all(word not in told for word in (secret, "first-key", "/home"))
    first = next(line for line in lines if line["event"] == "request")
    assert (first["request_id"], first["status"], first["inputs"]) == ("id-7", "OK", 2)
    text = guarded.served.service.metrics.text().decode()
    path = f'path="/{kserve.SERVICE}/ModelInfer"'
    assert f'nvembed_requests_total{{code="INTERNAL",method="gRPC",{path}}} 1.0' in text
    assert f'nvembed_requests_total{{code="NOT_FOUND",method="gRPC",{path}}} 1.0' in text


def test_before_the_models_are_compiled_calls_are_unavailable(embedder):
    served = Served({"nv": embedder})
    with Called(served) as called:
        code, _, trailing = called.infer("nv_query")
        assert code == grpc.StatusCode.UNAVAILABLE
        assert int(trailing["retry-after"]) > 0
        assert not called.call("ServerLive")[1].live
        assert not called.call("ServerReady")[1].ready
    served.runner.close()


def test_a_full_queue_is_resource_exhausted(embedder):
    settings = {"max_queue_tokens": 100, "max_queue_requests": 3, "batch_tokens": 64}
    with Served({"nv": embedder}, **settings) as served, Called(served) as called:
        content = request("nv_query", ["word " * 20] * 40)

        async def many():
            calls = [called.begin("ModelInfer", content) for _ in range(12)]
            return [await call.code() for call in calls]

        codes = served.run(many())
        assert set(codes) == {OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert called.infer("nv_query")[0] == OK


def test_a_cancelled_call_takes_its_texts_out_of_the_queue(embedder):
    with Served({"nv": embedder}, batch_tokens=64) as served, Called(served) as called:
        batcher, model = served.service._batcher, served.service.names.models[0]
        run, batches = model.run, []
        model.run = lambda arrays: (batches.append(arrays), run(arrays))[1]
        content = request("nv_query", ["word " * 20] * 300)

        async def cancelled():
            call = called.begin("ModelInfer", content)
            while not batches:
                await asyncio.sleep(0.001)
            call.cancel()
            while served.service._open:
                await asyncio.sleep(0.001)

        served.run(cancelled())
        assert batcher.waiting_tokens == 0
        assert called.infer("nv_query")[0] == OK
        assert len(batches) < 250
        assert "nvembed_requests_cancelled_total 1.0" in served.service.metrics.text().decode()


def test_a_port_in_use_is_an_error(called):
    other = RpcServer(called.served.service, "127.0.0.1", called.server.port)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{called.server.port}"):
        called.served.run(other.start())


def test_open_calls_are_answered_when_the_server_stops():
    served = Served({"nv": make_embedder(3)}, batch_tokens=64)
    with served, Called(served) as called:
        content = request("nv_query", ["word " * 20] * 100)

        async def stopped():
            call = called.begin("ModelInfer", content)
            while not served.service._open:
                await asyncio.sleep(0.001)
            await called.server.stop(30)
            return await call.code(), await called.begin("ServerLive", b"").code()

        assert served.run(stopped()) == (OK, grpc.StatusCode.UNAVAILABLE)
