"""BERT, Qwen2, Gemma 2 and Mistral with random weights, against transformers' own models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_folder import SentenceFolder
from transformers import BertConfig, Gemma2Config, MistralConfig, Qwen2Config

from nvembed_jax import Embedder

# Of mixed lengths, but in two length buckets: every bucket is one compilation a test.
TEXTS = [
    "open a file",
    "x",
    "é 漢\t",
    "The with statement wraps a block in a context manager, " * 2,
]
TOLERANCE = 1e-5

WINDOW = 9  # shorter than most texts
SMALL = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
DECODERS = {
    "mistral": MistralConfig(**SMALL, sliding_window=None, rope_theta=5000.0, rms_norm_eps=1e-2),
    "mistral, windowed": MistralConfig(**SMALL, sliding_window=WINDOW, head_dim=24),
    "qwen2": Qwen2Config(**SMALL, sliding_window=WINDOW, rope_theta=1e6, rms_norm_eps=1e-3),
    "qwen2, windowed": Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=0
    ),
    "gemma2": Gemma2Config(
        **SMALL, head_dim=24, query_pre_attn_scalar=40, attn_logit_softcapping=2.0,
        sliding_window=WINDOW, rms_norm_eps=1e-3,
    ),
}  # fmt: skip
BERT_SMALL = BertConfig(
    vocab_size=400, hidden_size=64, intermediate_size=112, num_hidden_layers=2,
    num_attention_heads=4, max_position_embeddings=160, layer_norm_eps=1e-3,
)  # fmt: skip
E5_LARGE = BertConfig(
    vocab_size=400, hidden_size=1024, intermediate_size=4096, num_hidden_layers=2,
    num_attention_heads=16, max_position_embeddings=512,
)  # fmt: skip


def load(folder: Path, **options) -> Embedder:
    return Embedder.from_pretrained(folder, dtype="float32", **options)


def assert_close(ours, reference) -> None:
    np.testing.assert_allclose(ours, np.asarray(reference), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_equals_transformers(tmp_path, name):
    reference = SentenceFolder(tmp_path, DECODERS[name], "eos")
    ours = load(tmp_path, attention="causal").encode(TEXTS)
    assert_close(ours, reference.embed(TEXTS))


@pytest.mark.parametrize("name", ["mistral, windowed", "qwen2, windowed", "gemma2"])
def test_window_is_felt(tmp_path, name):
    """Without its window the reference moves by far more than the tolerance."""
    reference = SentenceFolder(tmp_path, DECODERS[name], "eos")
    windowed = reference.embed(TEXTS)
    reference.model.config.sliding_window = 512
    for module in reference.model.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = 512
    assert (reference.embed(TEXTS) - windowed).abs().max() > 1e-2


def test_softcap_is_felt(tmp_path):
    reference = SentenceFolder(tmp_path, DECODERS["gemma2"], "eos")
    capped = reference.embed(TEXTS)
    for module in reference.model.modules():
        if hasattr(module, "attn_logit_softcapping"):
            module.attn_logit_softcapping = None
    assert (reference.embed(TEXTS) - capped).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_published_config_spelling_equals_transformers(tmp_path, name):
    """As in published folders: `rope_theta`, no `layer_types`, a window that Qwen2 does not use."""
    reference = SentenceFolder(tmp_path, DECODERS[name], "eos")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope["rope_theta"], "torch_dtype": config.pop("dtype")}
    config.pop("layer_types", None)
    if name == "qwen2":
        config |= {"sliding_window": WINDOW, "use_sliding_window": False, "max_window_layers": 2}
    file.write_text(json.dumps(config))
    assert_close(load(tmp_path, attention="causal").encode(TEXTS), reference.embed(TEXTS))


def test_dense_module_equals_pytorch(tmp_path):
    """stella's layout: a dense layer behind the pooling."""
    reference = SentenceFolder(tmp_path, DECODERS["qwen2"], "mean", dense=96)
    dense = load_file(str(tmp_path / "2_Dense/model.safetensors"))
    states = [
        reference.model(torch.tensor([e.ids])).last_hidden_state[0].mean(0)
        for e in reference.tokenizer.encode_batch(TEXTS)
    ]
    linear = torch.nn.functional.linear(
        torch.stack(states), dense["linear.weight"], dense["linear.bias"]
    )
    ours = load(tmp_path, attention="causal").encode(TEXTS)
    assert_close(ours, torch.nn.functional.normalize(linear, dim=-1))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_small_bert_equals_transformers(tmp_path, pooling):
    """Also a text longer than the maximum: both cut it and keep [SEP]."""
    reference = SentenceFolder(tmp_path, BERT_SMALL, pooling, max_length=40)
    assert_close(load(tmp_path).encode(TEXTS), reference.embed(TEXTS))
    assert len(reference.tokenizer.encode(TEXTS[-1]).ids) == 40


def test_e5_large_shape_equals_transformers(tmp_path):
    """Full width, two layers, with the prefixes of E5."""
    prompts = {"query": "query: ", "passage": "passage: "}
    reference = SentenceFolder(tmp_path, E5_LARGE, "mean", prompts=prompts, max_length=512)
    ours = load(tmp_path)
    assert_close(ours.encode(TEXTS), reference.embed(TEXTS))
    assert_close(ours.encode_query(TEXTS), reference.embed([f"query: {t}" for t in TEXTS]))
    assert_close(ours.encode_document(TEXTS), reference.embed([f"passage: {t}" for t in TEXTS]))


def test_folder_saved_by_sentence_transformers_encodes_the_same(tmp_path):
    """Its version 6 writes other module names and pooling keys than published folders hold."""
    from sentence_transformers import SentenceTransformer

    SentenceFolder(tmp_path / "old", BERT_SMALL, "mean")
    theirs = SentenceTransformer(str(tmp_path / "old"), device="cpu")
    theirs.save(str(tmp_path / "new"))
    expected = theirs.encode(TEXTS)
    assert_close(load(tmp_path / "old").encode(TEXTS), expected)
    assert_close(load(tmp_path / "new").encode(TEXTS), expected)
