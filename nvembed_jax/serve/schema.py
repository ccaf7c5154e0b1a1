"""Bodies of requests and responses: what is read, what is checked, and what the API's documentation
says of it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from nvembed_jax.serve.errors import ServeError, bad_request, invalid

InputType = Literal["query", "passage"]
Truncate = Literal["NONE", "START", "END"]
Preset = Literal["high_precision", "balanced", "high_recall"]
_TEXTS = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2048},
    ]
}
# Looked at by `texts_of`, which tells token ids from other things that are no texts.
Texts = Annotated[Any, WithJsonSchema(_TEXTS)]
MAX_TASK_CHARS = 4000


class RequestBody(BaseModel):
    """Unknown fields are ignored; a null is a field left away."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str = Field(description="A name from /v1/models; the suffix -query or -passage decides.")
    task: str | None = Field(
        None, max_length=MAX_TASK_CHARS, description="Task description of queries."
    )
    truncate: Truncate | None = Field(None, description="Of a text too long; default: NONE.")


class EmbeddingsBody(RequestBody):
    """POST /v1/embeddings."""

    input: Texts = Field(description="One text or several.")
    input_type: InputType | None = Field(None, description="What the texts are to the model.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: the array's bytes, little-endian. Default: float."
    )
    dimensions: int | None = Field(None, ge=1, description="Leading ones kept, then renormalised.")
    embedding_type: Literal["float", "int8", "uint8", "binary", "ubinary"] | None = Field(
        None, description="Default: float; binary and ubinary hold eight dimensions a byte."
    )
    user: str | None = Field(None, description="Not used.")


class TokenizeBody(RequestBody):
    """POST /tokenize."""

    input: Texts = Field(description="One text or several.")
    input_type: InputType | None = Field(
        None, description="Adds what this kind of text has before it; default: nothing."
    )


class SimilarityBody(RequestBody):
    """POST /similarity."""

    queries: Texts = Field(description="One text or several: rows of the scores.")
    passages: Texts = Field(description="One text or several: columns of the scores.")
    input_type: InputType | None = Field(
        None, description="What both sides are; default: queries are queries, passages passages."
    )
    dimensions: int | None = Field(None, ge=1, description="Leading ones kept, then renormalised.")
    preset: Preset | None = Field(
        None, description="Threshold of the model's calibration; default: the server's."
    )


class Usage(BaseModel):
    """Tokens of all texts, special ones and instructions included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingItem(BaseModel):
    """One embedding, as numbers or base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | list[int] | str


class EmbeddingsAnswer(BaseModel):
    """In the order of the input."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: Usage


class TokensItem(BaseModel):
    """The ids of one text, special ones included."""

    object: Literal["tokens"]
    index: int
    tokens: list[int]
    count: int


class TokenizeAnswer(BaseModel):
    """In the order of the input; `max_length` is what an embedded text may have."""

    object: Literal["list"]
    data: list[TokensItem]
    model: str
    max_length: int
    usage: Usage


class SimilarityAnswer(BaseModel):
    """Cosines: a row a query, a column a passage. The optional fields are there where the server
    has a calibration of the model for such pairs.
    """

    object: Literal["similarity"]
    scores: list[list[float]]
    model: str
    usage: Usage
    preset: str | None = Field(None, description="Which threshold was applied.")
    threshold: float | None = Field(None, description="Its cosine.")
    labels: list[list[bool]] | None = Field(None, description="Whether each score reaches it.")
    probabilities: list[list[float]] | None = Field(
        None, description="Of a match; where the calibration had labels."
    )


class ErrorInner(BaseModel):
    """As OpenAI has it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The one shape of all errors."""

    object: Literal["error"]
    message: str
    type: str
    detail: dict[str, Any]
    error: ErrorInner


class HealthAnswer(BaseModel):
    """Of the service."""

    object: Literal["health.response"]
    message: str
    status: str


class ModelItem(BaseModel):
    """A name that requests can have."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelsAnswer(BaseModel):
    """Every model, and its two aliases."""

    object: Literal["list"]
    data: list[ModelItem]


class VersionAnswer(BaseModel):
    """Of the package, and of this interface."""

    release: str
    api: str


class MetadataAnswer(BaseModel):
    """What is served, and within which limits."""

    version: str
    modelInfo: list[dict[str, Any]]  # noqa: N815 (NIM's name)
    limits: dict[str, int]


Parsed = TypeVar("Parsed", bound=RequestBody)


def parse(kind: type[Parsed], content: bytes) -> Parsed:
    """The body of a request.

    Raises:
        ServeError: 400: no JSON (a lone surrogate is none, either); 422: as `check`.
    """
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise bad_request(
            f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})",
            code="invalid_json",
        ) from None
    if not isinstance(data, dict):
        raise invalid("the body must be a JSON object")
    return check(kind, data)


def check(kind: type[Parsed], data: Mapping[str, Any]) -> Parsed:
    """The fields of a request.

    Raises:
        ServeError: 422: a field is missing or wrong. Values are never repeated.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        place = ".".join(str(part) for part in found[0]["loc"])
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found[:3])
        raise invalid(told, param=place) from None


def texts_of(value: Any, name: str, most: int) -> list[str]:
    """The texts in a field that holds one or several.

    Raises:
        ServeError: 400 for token ids, 422 for what else are no texts, for none and for too many.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise invalid(f"{name} must be a string or a list of strings", param=name)
    if not value:
        raise invalid(f"{name} must hold at least one text", param=name)
    if len(value) > most:
        raise invalid(f"{name} holds {len(value)} texts; expected at most {most}", param=name)
    for i, item in enumerate(value):
        if not isinstance(item, str):
            raise _no_text(item, name, i)
    return value


def _no_text(item: Any, name: str, index: int) -> ServeError:
    if isinstance(item, int | list) and not isinstance(item, bool):
        return bad_request(
            f"{name} holds token ids, which mean nothing to this model's tokenizer: send texts. In "
            "langchain-openai, make OpenAIEmbeddings with check_embedding_ctx_length=False",
            param=name,
            code="token_ids",
        )
    return invalid(f"{name}[{index}] must be a string", param=f"{name}[{index}]")


class Limits(NamedTuple):
    """What this server adds to the schema of a request: names of models, and texts at most."""

    names: Sequence[str]
    most: int


def body_schema(kind: type[BaseModel], limits: Limits) -> Mapping[str, Any]:
    """JSON schema of a request's body, under the limits of this server."""
    schema = copy.deepcopy(kind.model_json_schema())
    schema["properties"]["model"]["enum"] = list(limits.names)
    for field in schema["properties"].values():
        for option in field.get("anyOf", ()):
            if "maxItems" in option:
                option["maxItems"] = limits.most
    return schema
