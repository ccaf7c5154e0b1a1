"""A static start: embeddings are weighted means of the teacher's token vectors, whatever the
blocks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from nvembed_jax import Embedder
from nvembed_jax.checkpoint.saving import save_model
from nvembed_jax.compress import static_start as start
from nvembed_jax.config import ModelConfig, tiny
from nvembed_jax.model import init_params
from nvembed_jax.text.tokenizer import Tokenizer

TEXTS = ["rivers run to the sea", "the sea is wide", "a bird sings", "the the the bird"]


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return tiny(vocab_size=8192)


@pytest.fixture(scope="module")
def tokenizer(config: ModelConfig) -> Tokenizer:
    return Tokenizer.packaged(config.text)


@pytest.fixture(scope="module")
def teacher(config: ModelConfig, tokenizer: Tokenizer) -> Embedder:
    return Embedder(config, init_params(config, jax.random.key(1)), tokenizer)


def test_table_rows_have_one_length_and_weights_fall_with_frequency():
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[4] = 0
    table = start.token_table(vectors, np.asarray([0, 1, 100, 10_000, 5]))
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), np.sqrt(8), rtol=1e-6)
    kept = np.linalg.norm(table[:, :7], axis=1)
    frequency = np.asarray([0, 1, 100, 10_000]) / 10_106
    np.testing.assert_allclose(kept[:4] / kept[0], 1e-3 / (1e-3 + frequency), rtol=1e-4)
    assert kept[4] == 0
    np.testing.assert_allclose(kept[0], np.sqrt(8), rtol=1e-6)


@pytest.mark.parametrize("pooling", ["latent", "mean"])
def test_embedding_is_the_weighted_mean_of_token_vectors(config, tokenizer, pooling: str):
    config = dataclasses.replace(config, pooling=pooling)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(8192, 63)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    counts = rng.integers(0, 50, 8192)
    params = start.static_params(config, start.token_table(vectors, counts))
    got = Embedder(config, params, tokenizer).encode(TEXTS)
    weights = start.SIF / (start.SIF + counts / counts.sum())
    means = [
        (vectors[ids] * weights[ids, None]).mean(0)
        for ids in (encoded.input_ids for encoded in tokenizer.encode(TEXTS))
    ]
    wanted = np.stack([mean / np.linalg.norm(mean) for mean in means])
    np.testing.assert_allclose(got[:, :63], wanted, atol=2e-6)
    np.testing.assert_allclose(got[:, 63], 0, atol=1e-7)


def test_blocks_grow_under_a_static_model_without_changing_it(tmp_path, config, tokenizer):
    static = dataclasses.replace(
        config, pooling="mean", backbone=dataclasses.replace(config.backbone, num_layers=0)
    )
    params = init_params(static, jax.random.key(2))
    assert set(params["backbone"]) == {"embed_tokens", "norm"}
    params["backbone"]["norm"]["weight"] = np.linspace(-1, 2, 64, dtype=np.float32)
    wanted = Embedder(static, params, tokenizer).encode(TEXTS)
    files = {path.name: path.read_bytes() for path in tokenizer.files}
    save_model(tmp_path / "static", static, params, tokenizer_files=files)
    loaded = Embedder.from_pretrained(tmp_path / "static").encode(TEXTS)
    np.testing.assert_array_equal(loaded, wanted)
    grown = Embedder(config, start.grown(config, params["backbone"]), tokenizer).encode(TEXTS)
    np.testing.assert_allclose(grown, wanted, atol=2e-6)
    wide = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, vocab_size=9))
    with pytest.raises(ValueError, match=r"has shape \(8192, 64\); expected \(9, 64\)"):
        start.grown(wide, params["backbone"])


def test_start_takes_the_teachers_pieces(config, tokenizer, teacher):
    axes = start.sample_axes(teacher, TEXTS * 20, 4)
    assert axes.shape == (64, 4)
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-5)
    small = dataclasses.replace(
        config, backbone=dataclasses.replace(config.backbone, embed_dim=5, num_heads=1,
                                             num_kv_heads=1, head_dim=4),
        latent=dataclasses.replace(config.latent, latent_dim=5),
    )  # fmt: skip
    params = start.static_start(small, tokenizer, teacher, axes, iter(TEXTS))
    pieces = start.piece_texts(tokenizer)
    row = tokenizer.encode(["sea"])[0].input_ids[1]
    assert pieces[row] == "sea"
    taught = start.token_vectors(teacher, ["sea"])[0] @ axes
    got = np.asarray(params["backbone"]["embed_tokens"]["weight"])[row, :4]
    np.testing.assert_allclose(
        got / np.linalg.norm(got), taught / np.linalg.norm(taught), atol=1e-5
    )


def test_token_vectors_leave_out_what_opens_and_closes_a_text(tokenizer):
    config = tiny(vocab_size=8192, pooling="mean")
    config = dataclasses.replace(
        config, backbone=dataclasses.replace(config.backbone, num_layers=0)
    )
    params = init_params(config, jax.random.key(3))
    params["backbone"]["embed_tokens"]["weight"] *= 100  # so that the norm adds nothing
    teacher = Embedder(config, params, tokenizer)
    texts = ["sea", "unbelievably wide", "x"]
    table = np.asarray(params["backbone"]["embed_tokens"]["weight"])
    rows = [encoded.input_ids[1:-1] for encoded in tokenizer.encode(texts)]
    assert len(rows[1]) > 1
    means = np.stack([(table[r] / _rms(table[r])).mean(0) for r in rows])
    wanted = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(start.token_vectors(teacher, texts), wanted, atol=1e-5)


def _rms(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(rows**2, axis=1, keepdims=True))


def test_rotated_teacher_keeps_cosines_and_can_be_cut(tmp_path: Path, config, tokenizer, teacher):
    files = {path.name: path.read_bytes() for path in tokenizer.files}
    save_model(tmp_path / "teacher", config, init_params(config, jax.random.key(1)),
               tokenizer_files=files)  # fmt: skip
    axes = start.principal_axes(teacher.encode(TEXTS * 20), 64)
    start.save_rotated(tmp_path / "teacher", axes, tmp_path / "rotated")
    rotated = Embedder.from_pretrained(tmp_path / "rotated").encode(TEXTS)
    whole = teacher.encode(TEXTS)
    np.testing.assert_allclose(rotated @ rotated.T, whole @ whole.T, atol=2e-5)
    lengths = np.sum(rotated**2, axis=0)
    assert lengths[: len(TEXTS)].sum() > 0.999 * lengths.sum()


def test_table_of_another_shape_is_refused(config):
    with pytest.raises(ValueError, match=r"shape \(10, 64\); the config needs \(8192, 64\)"):
        start.static_params(config, np.zeros((10, 64), np.float32))
