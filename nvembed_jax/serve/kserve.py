"""KServe's inference protocol (v2): its messages to requests for embeddings, and back. What the
tensors and parameters mean follows NVIDIA NIM's embedding models.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from nvembed_jax.serve import schema
from nvembed_jax.serve.errors import ServeError, bad_request, invalid
from nvembed_jax.serve.proto import message_classes
from nvembed_jax.serve.service import Embedded, TextsRequest

SERVICE = "inference.GRPCInferenceService"
VERSION = "1"  # of every model
PLATFORM = "nvembed_jax"
INPUT = "text"
OUTPUTS = ("token_count", "embeddings")
PARAMETERS = ("input_type", "truncate", "dimensions", "embedding_type", "task")
_DATATYPES = {"float32": "FP32", "int8": "INT8", "uint8": "UINT8", "int32": "INT32"}
_LENGTH = struct.Struct("<I")

messages: Mapping[str, Any] = message_classes(
    resources.files("nvembed_jax.serve").joinpath("kserve.proto").read_text("utf-8"),
    "nvembed_jax/serve/kserve.proto",
)


def parse(kind: str, content: bytes) -> Any:
    """A message from its bytes.

    Raises:
        ServeError: 400: they are none.
    """
    try:
        return messages[kind].FromString(content)
    except DecodeError:
        raise bad_request(f"the message is no {kind}", code="invalid_message") from None


def check_version(asked: str) -> None:
    """Raises ServeError (404) for a version that no model has."""
    if asked not in ("", VERSION):
        raise ServeError(404, f"no such version of the model; there is {VERSION}", param="version")


def texts_request(message: Any, model: str, most: int) -> TextsRequest:
    """What a ModelInferRequest asks for.

    Args:
        model: the name that its model has over HTTP.
        most: texts that it may hold.

    Raises:
        ServeError: 400 or 422: tensors or parameters are not as they should be.
    """
    for output in message.outputs:
        if output.name not in OUTPUTS:
            raise invalid(f"no such output; there are: {', '.join(OUTPUTS)}", param="outputs")
    if len(message.inputs) != 1 or message.inputs[0].name != INPUT:
        raise invalid(f"expected one input, named {INPUT}", param="inputs")
    given = {name: _value(message.parameters, name) for name in PARAMETERS}
    checked = schema.check(schema.EmbeddingsBody, {"model": model, "input": "", **given})
    texts = schema.texts_of(_texts(message, most), INPUT, most)
    return TextsRequest(
        model=model,
        texts=texts,
        input_type=checked.input_type,
        task=checked.task,
        truncate=checked.truncate or "NONE",
        dimensions=checked.dimensions,
        embedding_type=checked.embedding_type or "float",
    )


def infer_response(message: Any, done: Embedded) -> bytes:
    """The ModelInferResponse to a request, as bytes."""
    arrays = {"token_count": done.lengths.astype(np.int32), "embeddings": done.rows}
    wanted = [output.name for output in message.outputs] or OUTPUTS
    answer = messages["ModelInferResponse"](
        model_name=message.model_name, model_version=VERSION, id=message.id
    )
    for name in wanted:
        array = arrays[name]
        answer.outputs.add(name=name, datatype=_DATATYPES[array.dtype.name], shape=array.shape)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        answer.raw_output_contents.append(little.tobytes())
    return answer.SerializeToString()


def model_metadata(name: str, embed_dim: int) -> Any:
    """The ModelMetadataResponse of a model; embeddings as they are by default."""
    answer = messages["ModelMetadataResponse"](name=name, versions=[VERSION], platform=PLATFORM)
    answer.inputs.add(name=INPUT, datatype="BYTES", shape=(-1, 1))
    answer.outputs.add(name=OUTPUTS[0], datatype="INT32", shape=(-1,))
    answer.outputs.add(name=OUTPUTS[1], datatype="FP32", shape=(-1, embed_dim))
    return answer


def _value(parameters: Mapping[str, Any], name: str) -> Any:
    """A parameter's value; None: it is not there."""
    if name not in parameters:
        return None
    chosen = parameters[name].WhichOneof("parameter_choice")
    return getattr(parameters[name], chosen) if chosen else None


def _texts(message: Any, most: int) -> list[str]:
    """The values of the one input, in either form."""
    tensor = message.inputs[0]
    count, shape = 1, tuple(tensor.shape)
    if tensor.datatype != "BYTES" or len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise invalid(f"{INPUT} must be BYTES of shape [B, 1] or [B]", param=INPUT)
    count = shape[0]
    if message.raw_input_contents:
        if len(message.raw_input_contents) != 1 or tensor.HasField("contents"):
            raise invalid("expected one entry of raw_input_contents and no contents", param=INPUT)
        values = _split(message.raw_input_contents[0], most)
    else:
        values = tensor.contents.bytes_contents
    if len(values) != count:
        raise invalid(f"{INPUT} holds {len(values)} values; its shape says {count}", param=INPUT)
    return [_decoded(value, i) for i, value in enumerate(values)]


def _split(content: bytes, most: int) -> Sequence[bytes]:
    """The values of a raw BYTES tensor: each stands behind its length in four bytes."""
    values, at = [], 0
    while at < len(content):
        begin = at + _LENGTH.size
        end = begin + (_LENGTH.unpack_from(content, at)[0] if begin <= len(content) else 0)
        if max(begin, end) > len(content):
            raise invalid(f"the raw contents of {INPUT} end inside a value", param=INPUT)
        values.append(content[begin:end])
        at = end
        if len(values) > most:
            raise invalid(f"{INPUT} holds more than {most} texts", param=INPUT)
    return values


def _decoded(value: bytes, index: int) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request(f"{INPUT}[{index}] is not valid UTF-8", param=INPUT) from None
