"""Responses as bytes, straight from arrays: no number becomes a Python object on the way."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from nvembed_jax.serve.errors import ServeError
from nvembed_jax.text.tokenizer import Encoded


class JsonBytes(Response):
    """A response whose JSON is made already."""

    media_type = "application/json"


def json_response(content: Any, status: int = 200) -> JsonBytes:
    """A small object as a response."""
    return JsonBytes(orjson.dumps(content), status_code=status)


def error_response(error: ServeError) -> JsonBytes:
    """An error as a response."""
    return JsonBytes(
        orjson.dumps(error.body()), status_code=error.status, headers=dict(error.headers)
    )


def embeddings_body(rows: np.ndarray, as_base64: bool, model: str, tokens: int) -> bytes:
    """The response to POST /v1/embeddings.

    Numbers are written with as many digits as tell a float32 from its neighbours, so that they are
    read back as what base64 holds, bit for bit.

    Args:
        rows: [N, C] floats or codes.
    """
    items = (
        b'{"object":"embedding","index":%d,"embedding":%b}' % (i, value)
        for i, value in enumerate(_values(rows, as_base64))
    )
    return _listed(items, b'"model":%b,%b' % (orjson.dumps(model), _usage(tokens)))


def tokens_body(encoded: Sequence[Encoded], model: str, max_length: int) -> bytes:
    """The response to POST /tokenize."""
    items = (
        b'{"object":"tokens","index":%d,"tokens":%b,"count":%d}'
        % (i, _numbers(item.input_ids), len(item.input_ids))
        for i, item in enumerate(encoded)
    )
    total = sum(len(item.input_ids) for item in encoded)
    rest = b'"model":%b,"max_length":%d,%b' % (orjson.dumps(model), max_length, _usage(total))
    return _listed(items, rest)


def scores_body(scores: np.ndarray, model: str, tokens: int) -> bytes:
    """The response to POST /similarity; scores [N, M]."""
    rows = b",".join(_values(scores, False))
    return b'{"object":"similarity","scores":[%b],"model":%b,%b}' % (
        rows, orjson.dumps(model), _usage(tokens),
    )  # fmt: skip


def _values(rows: np.ndarray, as_base64: bool) -> Iterator[bytes]:
    """Row by row: a thread that does this lets others in between."""
    rows = np.ascontiguousarray(rows)
    if as_base64:
        rows = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        return (b'"%b"' % b64encode(row.data) for row in rows)
    return (_numbers(row) for row in rows)


def _numbers(row: np.ndarray) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def _listed(items: Iterator[bytes], rest: bytes) -> bytes:
    return b'{"object":"list","data":[%b],%b}' % (b",".join(items), rest)


def _usage(tokens: int) -> bytes:
    return b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
