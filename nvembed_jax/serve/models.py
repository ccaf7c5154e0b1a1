"""The models of a server: by which names they are asked for, what they put before a text, and in
which shapes they run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from nvembed_jax.encoder import Embedder
from nvembed_jax.serve.errors import ServeError, bad_request
from nvembed_jax.serve.settings import INPUT_TYPES, ServerSettings
from nvembed_jax.sharding import batch_shards
from nvembed_jax.text import instructions
from nvembed_jax.text.packing import TokenArrays, bucket_lengths, row_counts

_logger = logging.getLogger(__name__)


class ServedModel:
    """One model as it is served.

    Attributes:
        id: its name in requests. embedder: the model.
        batch_tokens: tokens of a batch. buckets: static lengths of batches.
        row_multiple: every batch has a multiple of so many rows.
    """

    def __init__(self, id: str, embedder: Embedder, batch_tokens: int | None = None):
        self.id, self.embedder = id, embedder
        self._runner = embedder._runner
        self.batch_tokens = batch_tokens or self._runner.default_batch_tokens()
        self.buckets = bucket_lengths(embedder.max_length)
        self.row_multiple = batch_shards(self._runner.mesh)
        self._warned = False

    @property
    def is_asymmetric(self) -> bool:
        """Whether a query is embedded otherwise than the same text as a passage."""
        return self.affixes("query", None) != self.affixes("passage", None)

    def affixes(self, input_type: str, task: str | None) -> tuple[str, str]:
        """(prefix, suffix) of a text, as `Embedder.encode_query` and `encode_document` have it."""
        text = self.embedder.config.text
        if input_type == "passage":
            return instructions.passage_prefix(text), ""
        if task is not None and text.query_template is None:
            if not self._warned:
                _logger.warning(
                    "task ignored: the model knows no task descriptions",
                    extra={"facts": {"model": self.id}},
                )
                self._warned = True
            task = None
        return instructions.query_prefix(text, task), text.query_suffix

    def shapes(self, longest: int) -> list[tuple[int, int]]:
        """(length, rows) of all batches with texts of up to `longest` tokens."""
        within = [n for i, n in enumerate(self.buckets) if i == 0 or self.buckets[i - 1] < longest]
        return [
            (length, rows)
            for length in within
            for rows in row_counts(length, self.batch_tokens, self.row_multiple)
        ]

    def run(self, arrays: TokenArrays) -> Any:
        """Dispatches one batch; embeddings [B, D], of length one, on the device."""
        return self._runner.embed(arrays, normalize=True)

    def facts(self) -> dict[str, Any]:
        """What may be told to everybody."""
        config = self.embedder.config
        return {
            "id": self.id,
            "family": config.family,
            "embed_dim": config.embed_dim,
            "max_length": self.embedder.max_length,
            "pooling": config.pooling,
            "attention": config.attention,
            "dtype": str(self._runner.compute.dtype),
            "matryoshka_dims": list(config.matryoshka_dims),
            "input_type_required": self.is_asymmetric,
            "takes_task": config.text.query_template is not None,
            "fingerprint": self.embedder.fingerprint,
        }


class ModelNames:
    """Finds a model by the name in a request: its id, or the id's last part if no other model
    has it; each also with the suffix -query or -passage.

    Raises:
        ValueError: no model, or two by one name.
    """

    def __init__(self, models: Sequence[ServedModel]):
        if not models:
            raise ValueError("a server needs at least one model")
        ids = [model.id for model in models]
        if twice := sorted({id for id in ids if ids.count(id) > 1}):
            raise ValueError(f"two models are named {twice[0]!r}; give each a name of its own")
        self.models = tuple(models)
        self._found: dict[str, tuple[ServedModel, str | None]] = {}
        # Exact ids go before aliases, and listed aliases before those by the last part of an id.
        shorts = [id.rpartition("/")[2] for id in ids]
        short = [(n, m) for n, m in zip(shorts, models, strict=True) if shorts.count(n) == 1]
        for named in (list(zip(ids, models, strict=True)), short):
            for name, model in named:
                self._found.setdefault(name, (model, None))
            for name, model in named:
                for kind in INPUT_TYPES:
                    self._found.setdefault(f"{name}-{kind}", (model, kind))

    def find(self, name: str) -> tuple[ServedModel, str | None]:
        """The model, and the input type that the name decides, if any.

        Raises:
            ServeError: 404, with the names that there are.
        """
        if name not in self._found:
            known = ", ".join(model.id for model in self.models)
            raise ServeError(
                404,
                f"no such model; this server has: {known}",
                code="model_not_found",
                param="model",
            )
        return self._found[name]

    def known(self) -> list[str]:
        """All names that `find` knows, ids first."""
        return list(self._found)

    def listed(self) -> list[str]:
        """All names for a list of models."""
        return [
            name
            for model in self.models
            for name in (model.id, *(f"{model.id}-{kind}" for kind in INPUT_TYPES))
        ]


class RpcNames:
    """The names of the models in KServe's protocol: lower case, and every character that is no
    letter or digit an underscore. Names as over HTTP are taken too.

    Raises:
        ValueError: two models by one name.
    """

    def __init__(self, names: ModelNames):
        ids = [rpc_name(model.id) for model in names.models]
        if twice := sorted({id for id in ids if ids.count(id) > 1}):
            raise ValueError(
                f"two models are named {twice[0]!r} over gRPC; give each a name that differs in "
                "more than case and punctuation"
            )
        self._names, self._known = names, {name: name for name in names.known()}
        for name in names.known():
            self._known.setdefault(rpc_name(name), name)

    def find(self, name: str) -> str:
        """The name over HTTP of a model.

        Raises:
            ServeError: 404, with the names that there are.
        """
        if name not in self._known:
            known = ", ".join(rpc_name(model.id) for model in self._names.models)
            raise ServeError(
                404,
                f"no such model; this server has: {known}",
                code="model_not_found",
                param="model_name",
            )
        return self._known[name]


def rpc_name(name: str) -> str:
    """A model's name as KServe's protocol has it."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def chosen_input_type(
    model: ServedModel,
    by_name: str | None,
    asked: str | None,
    task: str | None,
    settings: ServerSettings,
) -> str:
    """What a text is to the model. The name's suffix goes before the field `input_type`, since one
    widely used client sends the wrong field; then a task, which only queries have; then the
    server's default.

    Raises:
        ServeError: 400, where it is open and makes a difference, or a passage has a task.
    """
    chosen = by_name or asked or ("query" if task is not None else settings.default_input_type)
    if chosen is None and model.is_asymmetric:
        raise bad_request(
            "input_type is required: this model embeds queries and passages differently. Send "
            f"input_type 'query' or 'passage', or the model name {model.id}-query or "
            f"{model.id}-passage, or start the server with --default-input-type",
            param="input_type",
            code="input_type_required",
        )
    if chosen == "passage" and task is not None and model.embedder.config.text.query_template:
        raise bad_request(
            "task describes queries; a passage takes none: leave it away, or send input_type "
            "'query'",
            param="task",
        )
    return chosen or "passage"
