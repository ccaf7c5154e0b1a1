"""`Embedder`: texts and an instruction in, a NumPy matrix out. The door for search, evaluation,
serving and notebooks.

Texts are sorted by length and cut into batches of few static shapes by a token budget; the next
window of texts is tokenised while the device works; the order of the input is restored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from nvembed_jax import codes
from nvembed_jax.checkpoint import store
from nvembed_jax.config import Attention, ModelConfig, Pooling, to_dict
from nvembed_jax.model import Compute
from nvembed_jax.runner import Runner
from nvembed_jax.runtime import compute_dtype, enable_compilation_cache, progress_bar
from nvembed_jax.sharding import param_shardings
from nvembed_jax.text import instructions
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.text.windows import checked_inputs

_logger = logging.getLogger(__name__)


class Embedder:
    """An embedding model ready to encode. Make one with `Embedder.from_pretrained`.

    Attributes:
        config: what the model is.
        tokenizer: the model's `Tokenizer`. max_length: tokens a text may have before it is
            truncated.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: dict[str, Any],
        tokenizer: Tokenizer,
        *,
        dtype: Any = None,
        truncation: str = "keep_eos",
        max_length: int | None = None,
        mesh: Any = None,
        fold: bool = True,
        weights_fingerprint: str = "",
    ):
        if truncation not in ("keep_eos", "published"):
            raise ValueError(f"truncation must be 'keep_eos' or 'published'; got {truncation!r}")
        self.config, self.tokenizer = config, tokenizer
        self.truncation = truncation
        self.max_length = _checked_max_length(config, max_length)
        self._weights_fingerprint = weights_fingerprint
        self._runner = Runner(config, params, Compute(dtype=compute_dtype(dtype), mesh=mesh), fold)
        self._warned = False

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        dtype: str | None = None,
        attention: Attention | None = None,
        pooling: Pooling | None = None,
        truncation: str = "keep_eos",
        max_length: int | None = None,
        mesh: Any = None,
        fold_latents: bool = True,
    ) -> Embedder:
        """Loads a model.

        Args:
            path: None for the bundled default; a folder (ours, or Hugging Face: NV-Embed, Mistral,
                Qwen2 or Gemma 2 embedders, BERT/E5/sentence-transformers); or a name in the local
                Hugging Face cache or on the hub.
            dtype: of weights and activations; default bfloat16 on accelerators, float32 on CPUs.
            attention, pooling: override what the checkpoint says.
            truncation: "keep_eos", or "published", which loses the EOS of a truncated text.
            max_length: tokens; default: the checkpoint's.
            mesh: from `nvembed_jax.sharding.make_mesh`, to split batches and weights over devices.
            fold_latents: run the exact inference-time form of the latent block.

        Raises:
            FileNotFoundError: no such model. ValueError: a broken or unsupported checkpoint.
        """
        enable_compilation_cache()
        folder = store.resolve_model(path)
        config = store.load_config(folder)
        changes = {"attention": attention, "pooling": pooling}
        config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
        resolved = compute_dtype(dtype)
        shapes = store.abstract_leaves(config, resolved)
        shardings = None if mesh is None else param_shardings(mesh, shapes)
        return cls(
            config,
            store.load_params(folder, config, dtype=resolved, shardings=shardings),
            Tokenizer.from_folder(folder, config.text),
            dtype=resolved,
            truncation=truncation,
            max_length=max_length,
            mesh=mesh,
            fold=fold_latents,
            weights_fingerprint=store.weights_fingerprint(folder),
        )

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings."""
        return self.config.embed_dim

    @property
    def params(self) -> dict[str, Any]:
        """Nested dict of arrays, in the form in which they are run."""
        return self._runner.params

    @property
    def num_compilations(self) -> int:
        """Programs compiled so far: one a batch shape."""
        return self._runner.num_compilations

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides an embedding: weights, config, tokenizer, dtype, lengths,
        library version."""
        from nvembed_jax.version import __version__

        facts = {
            "weights": self._weights_fingerprint,
            "config": to_dict(self.config),
            "tokenizer": self.tokenizer.fingerprint,
            "dtype": str(self._runner.compute.dtype),
            "max_length": self.max_length,
            "truncation": self.truncation,
            "version": __version__,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def encode(
        self,
        inputs: Any,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        task: str | None = None,
        batch_tokens: int | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        normalize: bool = True,
        show_progress_bar: bool | None = None,
        output: str = "numpy",
    ) -> Any:
        """Embeds texts.

        Args:
            inputs: one text ([D] comes back) or several ([N, D]; none: [0, D]), in any order and
                of any lengths.
            prompt: raw prefix, not pooled where the model says so. prompt_name: one of the model's
                named prompts.
            task: a task description, put into the model's query template.
            batch_tokens: token budget of a batch, padding included.
            max_length: tokens kept of a text, at most the model's.
            truncate_dim: leading dimensions kept (Matryoshka), renormalised.
            precision: "float32", "int8", "uint8", "binary" or "ubinary" (packed bits).
            normalize: L2-normalise.
            show_progress_bar: None: when standard error is a terminal.
            output: "numpy" or "jax".

        Raises:
            ValueError: an input that is not text, or options that contradict each other.
        """
        prefix = self._prefix(prompt, prompt_name, task)
        return self._encode_texts(
            inputs,
            prefix,
            self.config.text.query_suffix if task is not None else "",
            batch_tokens=batch_tokens,
            max_length=max_length,
            truncate_dim=truncate_dim,
            precision=precision,
            normalize=normalize,
            show_progress_bar=show_progress_bar,
            output=output,
        )

    def encode_query(
        self,
        inputs: Any,
        task: str | None = None,
        examples: Sequence[tuple[str, str]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embeds queries with the model's query template (or its query prefix).

        Args:
            task: task description; None: the model's default one.
            examples: (query, passage) pairs put before the query, for models trained for them
                (bge-en-icl).
            kwargs: as for `encode`.
        """
        if {"prompt", "prompt_name"} & kwargs.keys():
            return self.encode(inputs, task=task, **kwargs)
        text, task = self.config.text, self._usable_task(task)
        if examples:
            prefix = instructions.examples_prefix(text, task, examples)
        else:
            prefix = instructions.query_prefix(text, task)
        return self._encode_texts(inputs, prefix, text.query_suffix, **kwargs)

    def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
        """Embeds passages: no instruction, or the model's passage prefix; kwargs as for
        `encode`."""
        if {"prompt", "prompt_name", "task"} & kwargs.keys():
            return self.encode(inputs, **kwargs)
        return self._encode_texts(
            inputs, instructions.passage_prefix(self.config.text), "", **kwargs
        )

    def similarity(self, a: Any, b: Any) -> np.ndarray:
        """Cosine similarities [N, M] of embeddings [N, D] and [M, D]; a vector counts as one
        row."""
        return codes.similarity(a, b)

    def _prefix(self, prompt: str | None, prompt_name: str | None, task: str | None) -> str:
        """The one prefix that `encode`'s options ask for."""
        given = [
            n
            for n, v in (("prompt", prompt), ("prompt_name", prompt_name), ("task", task))
            if v is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} contradict each other; give only one of them")
        text = self.config.text
        if prompt is not None:
            return prompt
        if prompt_name is not None:
            known = dict(text.prompts)
            if prompt_name not in known:
                names = ", ".join(known) or "none"
                raise ValueError(f"unknown prompt_name {prompt_name!r}; this model has: {names}")
            return known[prompt_name]
        task = self._usable_task(task)
        return text.default_prompt if task is None else instructions.query_prefix(text, task)

    def _usable_task(self, task: str | None) -> str | None:
        """`task`, or None (logged once) for a model that was not trained with task descriptions."""
        if task is not None and self.config.text.query_template is None:
            if not self._warned:
                _logger.warning(
                    "%s knows no task descriptions; `task` is ignored", self.config.name
                )
                self._warned = True
            return None
        return task

    def _encode_texts(
        self,
        inputs: Any,
        prefix: str,
        suffix: str,
        *,
        batch_tokens: int | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        normalize: bool = True,
        show_progress_bar: bool | None = None,
        output: str = "numpy",
    ) -> Any:
        if output not in ("numpy", "jax"):
            raise ValueError(f"output must be 'numpy' or 'jax'; got {output!r}")
        codes.check_precision(precision)
        if max_length is not None and not 0 < max_length <= self.max_length:
            raise ValueError(
                f"max_length must be in 1..{self.max_length} for this model; got {max_length}"
            )
        single = isinstance(inputs, str)
        texts = checked_inputs(inputs)
        tokenize = partial(
            self.tokenizer.encode,
            prefix=prefix,
            suffix=suffix,
            max_length=max_length or self.max_length,
            truncation=self.truncation,
        )
        out = np.zeros((len(texts), self.config.embed_dim), np.float32)
        parts = self._runner.run(
            texts,
            tokenize,
            max_length=self.max_length,
            pad_id=self.tokenizer.pad_id,
            batch_tokens=batch_tokens,
            normalize=normalize,
        )
        with progress_bar(len(texts), show_progress_bar) as bar:
            for indices, rows in parts:
                out[indices] = rows
                bar.update(len(indices))
        if truncate_dim is not None:
            out = codes.truncate(out, truncate_dim, renormalize=normalize)
        out = codes.quantize_embeddings(out, precision, codes.unit_ranges(out.shape[1]))
        out = out[0] if single else out
        return jnp.asarray(out) if output == "jax" else out


def _checked_max_length(config: ModelConfig, max_length: int | None) -> int:
    limit = config.backbone.max_positions
    chosen = config.text.max_length if max_length is None else max_length
    if not 0 < chosen <= limit:
        raise ValueError(f"max_length must be in 1..{limit} for this model; got {chosen}")
    return chosen
