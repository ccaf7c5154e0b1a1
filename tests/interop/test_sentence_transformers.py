"""What we export loads in sentence-transformers and embeds the same; what it saves loads here."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import numpy as np
import pytest
from published_checkpoint import write_tokenizer
from sentence_folder import write_bert_tokenizer
from sentence_transformers import SentenceTransformer
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import convert_checkpoint, export_checkpoint, save_model
from nvembed_jax.checkpoint.published_form import sentence_transformers_limits
from nvembed_jax.config import (
    BertConfig,
    ModelConfig,
    ProjectionConfig,
    TextConfig,
    bge_en_icl,
    nv_embed_v2,
    tiny,
)
from nvembed_jax.model import init_params

LONG = "a statement of many words " * 40
TEXTS = ["hello world", "the import statement binds names", "x", "", "A b C", LONG]
VOCAB = 512


def bert(pooling: str = "mean", **text: Any) -> ModelConfig:
    backbone = BertConfig(
        vocab_size=VOCAB, embed_dim=16, mlp_dim=24, num_layers=2, num_heads=4, max_positions=96
    )
    text = {"max_length": 48, **text}
    return ModelConfig(
        name="made", family="bert", backbone=backbone, pooling=pooling, text=TextConfig(**text)
    )


def decoder(pooling: str, attention: str, family: str = "mistral", **changes: Any) -> ModelConfig:
    config = tiny(pooling, attention, vocab_size=VOCAB)
    text = dataclasses.replace(config.text, max_length=48, mask_instruction=False)
    text = dataclasses.replace(text, **changes.pop("text", {}))
    backbone = dataclasses.replace(config.backbone, num_layers=2, max_positions=96)
    backbone = dataclasses.replace(backbone, **changes.pop("backbone", {}))
    return dataclasses.replace(
        config, family=family, backbone=backbone, text=text, latent=None,
        self_attention_pooling=None, **changes,
    )  # fmt: skip


E5 = {"query_prompt": "query: ", "passage_prompt": "passage: "}
E5_NAMED = (("query", "query: "), ("passage", "passage: "))
DENSE = (
    ProjectionConfig(in_dim=16, out_dim=8),
    ProjectionConfig(in_dim=8, out_dim=4, use_bias=False, activation="tanh"),
)
QWEN2 = {"qkv_bias": True, "rope_theta": 1e6, "norm_eps": 1e-6, "sliding_window": None}
GEMMA2 = {
    "activation": "gelu_tanh", "window_every": 2, "norm_offset": 1.0, "post_norms": True,
    "scale_embeddings": True, "attention_softcap": 50.0, "query_scale": 16**-0.5,
    "sliding_window": 48,
}  # fmt: skip
MODELS = {
    "MiniLM": bert(),
    "E5": bert(prompts=E5_NAMED, **E5),
    "prefixes without names": bert(**E5, default_prompt="text: "),
    "cls and dense": dataclasses.replace(bert("cls"), projections=DENSE),
    "mistral causal eos": decoder("eos", "causal", text={"mask_instruction": True}),
    "mistral bidirectional mean": decoder("mean", "bidirectional"),
    "mistral windowed": decoder("eos", "causal", backbone={"sliding_window": 8}),
    "qwen2": decoder("mean", "bidirectional", "qwen2", backbone=QWEN2),
    "gemma2": decoder("eos", "causal", "gemma2", backbone=GEMMA2),
}


def write_tokenizer_files(folder: Path, config: ModelConfig, eos: bool = False) -> Path:
    folder.mkdir()
    if isinstance(config.backbone, BertConfig):
        write_bert_tokenizer(folder, VOCAB, 96)
    elif config.family == "qwen2":
        write_byte_level_tokenizer(folder)
    else:
        write_tokenizer(folder, VOCAB, eos=eos)
    return folder


def write_byte_level_tokenizer(folder: Path) -> None:
    """A tokenizer in the manner of Qwen2: transformers reads every Qwen2 folder as one of these."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([topics[name] for name in sorted(topics)[:20]], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict.fromkeys(("eos_token", "pad_token"), "<|endoftext|>")
    names |= {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def own_folder(folder: Path, config: ModelConfig, **options: Any) -> Path:
    tokenizer = write_tokenizer_files(folder / "tokenizer", config, **options)
    params = jax.jit(lambda key: init_params(config, key))(jax.random.key(1))
    # Norms and biases that are not one and zero, so that one left out would be seen.
    params = jax.tree.map(
        lambda x: np.asarray(x) + 0.1 * np.cos(np.arange(x.size).reshape(x.shape)), params
    )
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    save_model(folder / "ours", config, params, src_folder=tokenizer)
    return folder / "ours"


def theirs(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def assert_same(ours: Embedder, other: SentenceTransformer) -> None:
    for name in ("encode", "encode_query", "encode_document"):
        expected = getattr(other, name)(TEXTS)
        np.testing.assert_allclose(getattr(ours, name)(TEXTS), expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", MODELS)
def test_exported_model_embeds_the_same_there(tmp_path, kind):
    folder = own_folder(tmp_path, MODELS[kind])
    export_checkpoint(folder, tmp_path / "torch")
    ours = Embedder.from_pretrained(folder, dtype="float32")
    there = theirs(tmp_path / "torch")
    assert there.max_seq_length == ours.max_length == 48
    assert there.similarity_fn_name == "cosine"
    np.testing.assert_allclose(np.linalg.norm(there.encode(TEXTS), axis=1), 1, atol=1e-5)
    assert_same(ours, there)
    assert_same(Embedder.from_pretrained(tmp_path / "torch", dtype="float32"), there)


@pytest.mark.parametrize("kind", ["cls and dense", "mistral windowed", "qwen2"])
def test_what_sentence_transformers_saves_loads_and_converts_here(tmp_path, kind):
    export_checkpoint(own_folder(tmp_path, MODELS[kind]), tmp_path / "torch")
    there = theirs(tmp_path / "torch")
    there.save_pretrained(str(tmp_path / "saved"), safe_serialization=True)
    convert_checkpoint(tmp_path / "saved", tmp_path / "converted")
    for folder in ("saved", "converted"):
        assert_same(Embedder.from_pretrained(tmp_path / folder, dtype="float32"), there)


def test_attention_and_eos_make_a_difference(tmp_path):
    """Else the comparisons above could not fail."""
    rows = []
    for i, attention in enumerate(("causal", "bidirectional")):
        (tmp_path / str(i)).mkdir()
        folder = own_folder(tmp_path / str(i), decoder("mean", attention))
        rows.append(Embedder.from_pretrained(folder, dtype="float32").encode(TEXTS))
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    export_checkpoint(folder, tmp_path / "torch")
    there = theirs(tmp_path / "torch")
    bare = there.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert there.tokenizer(TEXTS[0])["input_ids"] == [1, *bare, 2]


@pytest.mark.parametrize("eos", [False, True])
def test_eos_stands_once_at_the_end_of_every_text(tmp_path, eos):
    config = decoder("eos", "causal")
    folder = own_folder(tmp_path, config, eos=eos)
    export_checkpoint(folder, tmp_path / "torch")
    for place in (folder, tmp_path / "torch"):
        model = Embedder.from_pretrained(place, dtype="float32")
        for text in (TEXTS[1], LONG):
            ids = model.tokenizer.encode([text], max_length=48)[0].input_ids
            assert (ids[-1], list(ids).count(2)) == (2, 1)
    ids = theirs(tmp_path / "torch").tokenizer([LONG], truncation=True)["input_ids"][0]
    assert (len(ids), ids[-1], ids.count(2)) == (48, 2, 1)


def test_packaged_tokenizer_is_read_there(tmp_path):
    config = tiny("mean", vocab_size=8192)
    text = dataclasses.replace(config.text, max_length=48, mask_instruction=False)
    config = dataclasses.replace(config, text=text)
    params = jax.jit(lambda key: init_params(config, key))(jax.random.key(0))
    with resources.as_file(resources.files("nvembed_jax.text") / "data") as tokenizer:
        save_model(tmp_path / "ours", config, params, src_folder=tokenizer)
    export_checkpoint(tmp_path / "ours", tmp_path / "torch")
    assert_same(
        Embedder.from_pretrained(tmp_path / "ours", dtype="float32"), theirs(tmp_path / "torch")
    )


def test_prompts_are_written_under_the_names_that_are_looked_up(tmp_path):
    config = decoder("eos", "causal", text={"prompts": (("sts", "Same: "),)})
    export_checkpoint(own_folder(tmp_path, config), tmp_path / "torch")
    written = json.loads((tmp_path / "torch/config_sentence_transformers.json").read_text())
    task = config.text.default_task
    assert written["prompts"] == {"sts": "Same: ", "query": f"Instruct: {task}\nQuery: "}
    ours, there = (
        Embedder.from_pretrained(tmp_path / "ours", dtype="float32"),
        theirs(tmp_path / "torch"),
    )
    np.testing.assert_allclose(
        ours.encode(TEXTS, prompt_name="sts"), there.encode(TEXTS, prompt_name="sts"), atol=1e-5
    )
    again = Embedder.from_pretrained(tmp_path / "torch", dtype="float32")
    assert again.config.text == config.text


def test_query_prompt_of_no_template_stands_before_queries(tmp_path):
    """A decoder of sentence-transformers with a prompt of its own kind."""
    export_checkpoint(own_folder(tmp_path, decoder("eos", "causal")), tmp_path / "torch")
    config = json.loads((tmp_path / "torch/config.json").read_text())
    config.pop("nvembed_jax")
    (tmp_path / "torch/config.json").write_text(json.dumps(config))
    prompts = {"prompts": {"query": "search: ", "document": "text: "}}
    (tmp_path / "torch/config_sentence_transformers.json").write_text(json.dumps(prompts))
    ours = Embedder.from_pretrained(tmp_path / "torch", dtype="float32")
    assert_same(ours, theirs(tmp_path / "torch"))
    assert np.abs(ours.encode_query("x", task="Find it") - ours.encode_query("x")).max() > 1e-3


def test_what_has_no_class_there_is_said():
    assert sentence_transformers_limits(MODELS["MiniLM"]) == ()
    assert sentence_transformers_limits(MODELS["mistral causal eos"]) == ()
    for config, part in (
        (nv_embed_v2(), "no class for latent pooling"),
        (tiny("self_attention"), "no class for self_attention pooling"),
        (bge_en_icl(), "closes no query with '\\n<response>'"),
        (decoder("mean", "causal", text={"mask_instruction": True}), "one token more"),
        (MODELS["mistral bidirectional mean"], "is_causal"),
    ):
        limits = sentence_transformers_limits(config)
        assert len(limits) == 1, limits
        assert part in limits[0]
