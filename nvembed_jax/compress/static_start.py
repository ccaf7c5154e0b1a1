"""A small NV-Embed that begins as a static embedder: its table comes from a teacher, and decoder
and latent block begin as the identity, so that training starts from usable embeddings.

What a static embedder needs is a weighted mean of token vectors. The final RMSNorm gives all tokens
one length; so every row of the table is filled up to the same length by its last value, which the
norm's weight then drops: what is left of a row is as long as its token's weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Int

from nvembed_jax.batch import TokenBatch
from nvembed_jax.checkpoint import store
from nvembed_jax.checkpoint.saving import save_model
from nvembed_jax.config import DecoderConfig, ModelConfig, ProjectionConfig
from nvembed_jax.encoder import Embedder
from nvembed_jax.model import embed, init_params
from nvembed_jax.model.embedding_model import Params
from nvembed_jax.text.packing import pad
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.text.tokenizer_files import surrounding_ids

SIF = 1e-3  # smoothing of the weights SIF / (SIF + frequency) (Arora et al., 2017)
# Outputs of what is added to the residual stream: at zero, a block changes nothing.
_OUTPUTS = ("o_proj.weight", "down_proj.weight", "to_out.weight", "feed_forward.down.weight")
_COUNTED = 1000  # texts tokenised at a time
_PIECE_LENGTH = 16  # tokens of a piece, in the teacher's vocabulary


def piece_texts(tokenizer: Tokenizer) -> list[str]:
    """Every piece of the vocabulary as text; "" for specials and parts of characters."""
    backend = tokenizer.backend
    inner = getattr(backend.model, "continuing_subword_prefix", None) or ""
    texts = [
        backend.decode([i], skip_special_tokens=True).strip().removeprefix(inner)
        for i in range(tokenizer.vocab_size)
    ]
    return ["" if "\ufffd" in text else text for text in texts]


def token_vectors(teacher: Embedder, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
    """What the teacher's last layer says of each text: the mean over its tokens without those that
    open and close it, projected as an embedding is; unit length.

    Closer to what a text's tokens add to its embedding than the embedding of the piece alone:
    that leans on [CLS] and [SEP].
    """
    tokenizer, config = teacher.tokenizer, dataclasses.replace(teacher.config, pooling="mean")
    opening, closing = (len(ids) for ids in surrounding_ids(tokenizer.backend))
    closing += config.text.add_eos
    run = jax.jit(partial(embed, config))
    out = np.empty((len(texts), teacher.embed_dim), np.float32)
    encoded = tokenizer.encode(texts, max_length=_PIECE_LENGTH)
    for first in range(0, len(texts), _COUNTED):
        block = encoded[first : first + _COUNTED]
        arrays = pad(block, _PIECE_LENGTH, _COUNTED, tokenizer.pad_id)
        last = np.asarray([len(item.input_ids) - closing for item in block], np.int32)
        at = np.arange(_PIECE_LENGTH)
        arrays.pool_mask[: len(block)] = (at >= opening) & (at < last[:, None])
        out[first : first + len(block)] = run(teacher.params, TokenBatch(*arrays))[: len(block)]
    return out


def piece_counts(tokenizer: Tokenizer, texts: Iterable[str]) -> Int[np.ndarray, " V"]:
    """How often each piece stands in the texts, which are read once."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    block: list[str] = []

    def count() -> None:
        for encoded in tokenizer.encode(block):
            counts[:] += np.bincount(encoded.input_ids, minlength=len(counts))
        block.clear()

    for text in texts:
        block.append(text)
        if len(block) == _COUNTED:
            count()
    count()
    return counts


def principal_axes(vectors: Float[np.ndarray, "N E"], width: int) -> Float[np.ndarray, "E W"]:
    """The `width` directions that hold most of the vectors' length, strongest first, orthonormal.

    Not centred: cosines are kept as they are.
    """
    if width > min(vectors.shape):
        raise ValueError(f"{vectors.shape[0]} vectors of {vectors.shape[1]} have no {width} axes")
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    axes = axes[:, ::-1][:, :width]
    return (axes * np.sign(axes.sum(0, keepdims=True))).astype(np.float32)  # a sign to be sure of


def token_table(
    vectors: Float[np.ndarray, "V W"], counts: Int[np.ndarray, " V"], smoothing: float = SIF
) -> Float[np.ndarray, "V D"]:
    """Rows [vector * weight, rest], D = W + 1, all of length sqrt(D): values of about 1.

    Args:
        vectors: of the pieces; zero where a piece says nothing.
        counts: of the pieces in some corpus; weights are smoothing / (smoothing + frequency).
    """
    weights = smoothing / (smoothing + counts / max(int(counts.sum()), 1))
    rows = vectors * weights[:, None]
    width = vectors.shape[1] + 1
    lengths = np.linalg.norm(rows, axis=1)
    rows = rows * (np.sqrt(width) / lengths.max())
    rest = np.sqrt(np.maximum(width - np.sum(rows**2, axis=1), 0.0))
    return np.concatenate([rows, rest[:, None]], axis=1).astype(np.float32)


def static_params(config: ModelConfig, table: Float[np.ndarray, "V D"], seed: int = 0) -> Params:
    """Parameters of a model whose embedding is the mean of its tokens' vectors.

    Random but for the table, the outputs of all blocks (zero) and the final norm's weight.

    Raises:
        ValueError: the table does not fit the config, or the pooling is none that can begin so.
    """
    backbone = config.backbone
    if not isinstance(backbone, DecoderConfig) or config.pooling not in ("latent", "mean"):
        raise ValueError("a static start needs a decoder with latent or mean pooling")
    if table.shape != (backbone.vocab_size, backbone.embed_dim):
        wanted = (backbone.vocab_size, backbone.embed_dim)
        raise ValueError(f"the table has shape {table.shape}; the config needs {wanted}")
    kept = np.ones(backbone.embed_dim, np.float32)
    kept[-1] = 0.0
    norm = jnp.asarray(kept - backbone.norm_offset)
    return grown(config, {"embed_tokens": {"weight": table}, "norm": {"weight": norm}}, seed)


def grown(config: ModelConfig, static: Params, seed: int = 0) -> Params:
    """Parameters of `config` that embed as a model without blocks does.

    Args:
        static: that model's `backbone`: the table and the final norm's weight.
        seed: of what is random: all but those, and the outputs of all blocks, which are zero.
    """
    drawn = jax.jit(lambda key: init_params(config, key))(jax.random.key(seed))
    flat: dict[str, Any] = flatten_dict(drawn, sep=".")
    for name, leaf in flat.items():
        if name.endswith((*_OUTPUTS, "feed_forward.down.bias")):
            flat[name] = jnp.zeros_like(leaf)
    given: dict[str, Any] = flatten_dict(static, sep=".")
    for name, leaf in given.items():
        place = f"backbone.{name}"
        if flat[place].shape != leaf.shape:
            raise ValueError(f"{place} has shape {leaf.shape}; expected {flat[place].shape}")
        flat[place] = jnp.asarray(leaf)
    return unflatten_dict(flat, sep=".")


def static_start(
    config: ModelConfig,
    tokenizer: Tokenizer,
    teacher: Embedder,
    axes: Float[np.ndarray, "E W"],
    texts: Iterable[str],
    seed: int = 0,
) -> Params:
    """`static_params` with the teacher's `token_vectors` of the pieces along `axes`, weighted by
    how often they stand in `texts`."""
    width = config.backbone.embed_dim - 1
    pieces = piece_texts(tokenizer)
    said = [i for i, text in enumerate(pieces) if text]
    vectors = np.zeros((len(pieces), width), np.float32)
    vectors[said] = token_vectors(teacher, [pieces[i] for i in said]) @ axes[:, :width]
    table = token_table(vectors, piece_counts(tokenizer, texts))
    return static_params(config, table, seed)


def save_rotated(source: str | Path | None, axes: Float[np.ndarray, "E W"], out: Path) -> None:
    """Writes a teacher whose embeddings are along `axes`: cut anywhere, they keep what they can."""
    folder = store.resolve_model(source)
    config = store.load_config(folder)
    params: dict[str, Any] = dict(store.load_params(folder, config))
    layers = len(config.projections)
    projection = ProjectionConfig(in_dim=axes.shape[0], out_dim=axes.shape[1], use_bias=False)
    config = dataclasses.replace(config, projections=(*config.projections, projection))
    projections = {**params.get("projections", {}), str(layers): {"weight": jnp.asarray(axes.T)}}
    save_model(out, config, {**params, "projections": projections}, src_folder=folder)


def sample_axes(teacher: Embedder, texts: Sequence[str], width: int) -> Float[np.ndarray, "E W"]:
    """`principal_axes` of the teacher's embeddings of some texts."""
    return principal_axes(np.asarray(teacher.encode(list(texts)), np.float32), width)
