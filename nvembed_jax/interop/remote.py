"""`RemoteEmbedder`: a model behind an OpenAI- or NIM-compatible endpoint with the calls of
`Embedder`, so that it is evaluated and searched with like a local one. Embeddings are kept on disk.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax import codes
from nvembed_jax.config import TextConfig
from nvembed_jax.data.embedding_cache import cache_folder
from nvembed_jax.interop.endpoint import Endpoint, is_remote, make_endpoint, parse_spec
from nvembed_jax.interop.fetching import PROBE, Fetcher
from nvembed_jax.text import instructions
from nvembed_jax.text.windows import checked_inputs

_LOCAL_ONLY = ("dtype", "attention", "pooling", "truncation", "max_length", "mesh", "fold_latents")


class RemoteConfig(NamedTuple):
    """What of a model's configuration a remote one shows: its name, and its text handling."""

    name: str
    text: TextConfig


class RemoteEmbedder:
    """A remote model ready to encode; `close` it at the end, or use it as a context manager.

    Nothing is sent before the first text. Every embedding is written to the cache as it comes, so
    that a stopped run goes on where it was, and the same text is never sent twice.

    Args:
        endpoint: where the model is and what is sent (`make_endpoint`).
        cache: the folder of the cache; True: see `cache_folder`; False: nothing is kept.

    Attributes:
        endpoint: as given. config: `name` and `text`, as `Embedder.config` has them.

    Raises:
        ImportError: httpx is missing. ValueError: no API key where one is needed.
    """

    def __init__(self, endpoint: Endpoint, *, cache: bool | str | os.PathLike[str] = True) -> None:
        self.endpoint = endpoint
        # A server that takes the task in a field of its own is one that takes instructions.
        template = "{task}" if endpoint.send_task else endpoint.query_template
        text = TextConfig(
            query_template=template,
            query_prompt=endpoint.query_prefix,
            passage_prompt=endpoint.passage_prefix,
            default_prompt=endpoint.symmetric_prefix,
        )
        self.config = RemoteConfig(f"{endpoint.flavor}:{endpoint.model}", text)
        folder = cache_folder() if cache is True else (Path(cache) if cache else None)
        self._fetcher = Fetcher(endpoint, folder)
        self._finalizer = weakref.finalize(self, self._fetcher.close)

    def __enter__(self) -> RemoteEmbedder:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes connections and cache."""
        self._finalizer()

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides an embedding, as far as it is known here: host, model, options.

        A server that loads another model under the same name is not noticed: give a `revision`.
        """
        return self.endpoint.fingerprint

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings; one short text is sent where it is not known yet."""
        return self._fetcher.width or self.encode_document(PROBE).shape[0]

    @property
    def counts(self) -> dict[str, int]:
        """Requests, retries and (as the server says) tokens so far."""
        client = self._fetcher.client
        return {"requests": client.requests, "retries": client.retries, "tokens": client.tokens}

    @property
    def cache_path(self) -> Path | None:
        """The file that keeps the embeddings."""
        return self._fetcher.cache_path

    def encode(
        self,
        inputs: Any,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        task: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embeds texts of a symmetric task; see `Embedder.encode`.

        Args:
            inputs: one text ([D] comes back) or several ([N, D]; none: [0, D]).
            prompt: raw prefix. task: put into the query template, or sent (`send_task`).
            kwargs: truncate_dim, precision, normalize, show_progress_bar, output.

        Raises:
            ValueError: bad input or options, or a server that refuses.
            ConnectionError: no answer. OSError: the cache cannot be written.
        """
        if prompt_name is not None:
            raise ValueError("a remote model has no named prompts; use prompt= for a raw prefix")
        if prompt is not None and task is not None:
            raise ValueError("prompt and task contradict each other; give only one of them")
        side = self.endpoint.symmetric
        if task is None:
            prefix = self.endpoint.symmetric_prefix if prompt is None else prompt
            return self._encode(inputs, prefix, side, None, **kwargs)
        return self._encode(inputs, self._query_prefix(task), side, task, **kwargs)

    def encode_query(
        self, inputs: Any, task: str | None = None, examples: Any = None, **kwargs: Any
    ) -> Any:
        """Embeds queries with the query template or prefix, as input type "query"; see
        `encode`."""
        if examples:
            raise ValueError("a remote model takes no in-context examples; leave them away")
        if {"prompt", "prompt_name"} & kwargs.keys():
            return self.encode(inputs, task=task, **kwargs)
        return self._encode(inputs, self._query_prefix(task), "query", task, **kwargs)

    def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
        """Embeds passages: with the passage prefix, as input type "passage"; see `encode`."""
        if {"prompt", "prompt_name", "task"} & kwargs.keys():
            return self.encode(inputs, **kwargs)
        return self._encode(inputs, self.endpoint.passage_prefix, "passage", None, **kwargs)

    def similarity(self, a: Any, b: Any) -> np.ndarray:
        """Cosine similarities [N, M] of embeddings [N, D] and [M, D]; a vector counts as one
        row."""
        return codes.similarity(a, b)

    def _query_prefix(self, task: str | None) -> str:
        if self.endpoint.send_task:
            return self.endpoint.query_prefix
        if task is not None and self.endpoint.query_template is None:
            raise ValueError(
                f"{self.config.name} was named without a query_template; got task={task!r}"
            )
        return instructions.query_prefix(self.config.text, task)

    def _encode(
        self,
        inputs: Any,
        prefix: str,
        side: str,
        task: str | None,
        *,
        truncate_dim: int | None = None,
        precision: str = "float32",
        normalize: bool = True,
        show_progress_bar: bool | None = None,
        output: str = "numpy",
        batch_tokens: int | None = None,
        max_length: int | None = None,
    ) -> Any:
        if output not in ("numpy", "jax"):
            raise ValueError(f"output must be 'numpy' or 'jax'; got {output!r}")
        if batch_tokens is not None or max_length is not None:
            raise ValueError(
                "a remote model cuts and batches by itself; instead of batch_tokens and max_length "
                "use its options texts_a_request and chars_a_text"
            )
        codes.check_precision(precision)
        texts, fields = checked_inputs(inputs), self._fields(side, task)
        if texts:
            sent = [self._sent(text, prefix) for text in texts]
            rows = self._fetcher.rows(sent, fields, show_progress_bar)
        else:
            rows = np.zeros((0, self.embed_dim), np.float32)
        if truncate_dim is not None:
            rows = codes.truncate(rows, truncate_dim, renormalize=normalize)
        elif normalize:
            rows = codes.unit(rows)
        out = codes.quantize_embeddings(rows, precision, codes.unit_ranges(rows.shape[1]))
        out = out[0] if isinstance(inputs, str) else out
        if output == "numpy":
            return out
        import jax.numpy as jnp

        return jnp.asarray(out)

    def _sent(self, text: str, prefix: str) -> str:
        """A text as it goes over the line."""
        sent = prefix + text[: self.endpoint.chars_a_text]
        return " " if self.endpoint.blank_as_space and not sent.strip() else sent

    def _fields(self, side: str, task: str | None) -> dict[str, Any]:
        """The fields of a request that depend on the options."""
        e = self.endpoint
        given = {
            "dimensions": e.dimensions,
            "truncate": e.truncate,
            "input_type": side if e.input_types else None,
            "task": task if e.send_task else None,
        }
        return {k: v for k, v in given.items() if v is not None} | dict(e.extra_body)


def open_model(spec: str | None, **options: Any) -> Any:
    """The model of that name: a `RemoteEmbedder` for FLAVOUR:[URL#]MODEL[?option=value&...], else
    an `Embedder`.

    Args:
        spec: see `parse_spec` for remote models, else `Embedder.from_pretrained`.
        options: of `Embedder.from_pretrained`; or the fields of `Endpoint` and `cache`, which go
            before those in `spec`.

    Raises:
        ValueError: unknown options, options of local models for a remote one, no API key.
    """
    if spec is None or not is_remote(spec):
        from nvembed_jax.encoder import Embedder

        return Embedder.from_pretrained(spec, **options)
    flavor, model, url, written = parse_spec(spec)
    local = [name for name in _LOCAL_ONLY if options.pop(name, None) not in (None, "keep_eos")]
    options = written | {name: value for name, value in options.items() if value is not None}
    if local:
        raise ValueError(f"{', '.join(local)}: for local models only; {spec!r} is a remote one")
    cache = options.pop("cache", True)
    if cache in ("0", "1"):
        cache = cache == "1"
    return RemoteEmbedder(make_endpoint(flavor, model, url, **options), cache=cache)
