"""Random NV-Embed folders in the published Hugging Face form: config, shards, index, tokenizer."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from safetensors.torch import save_file
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch_nvembed import NVEmbed, Sizes, random_model


@functools.cache
def trained_pieces(count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """`count` byte-pair pieces and their merges, from Python's own documentation."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    texts = [topics[name] for name in sorted(topics)[:20]]
    trainer = trainers.BpeTrainer(vocab_size=count, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].get), merges


def mistral_tokenizer(vocab: int, *, eos: bool = False) -> Tokenizer:
    """A BPE with byte fallback in Mistral's layout: unk 0, bos 1, eos 2, bytes 3..258, pieces."""
    special = ["<unk>", "<s>", "</s>"]
    pieces, merges = trained_pieces(vocab - 259)
    names = special + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    ids = {name: number for number, name in enumerate(names)}
    model = models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    single = "<s> $A </s>" if eos else "<s> $A"
    tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return tokenizer


def write_tokenizer(folder: Path, vocab: int, *, eos: bool = False) -> Tokenizer:
    """Saves the tokenizer's files; pad is the EOS, as published."""
    tokenizer = mistral_tokenizer(vocab, eos=eos)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    more = {"add_bos_token": True, "add_eos_token": eos, "tokenizer_class": "LlamaTokenizer"}
    length = {"model_max_length": 32768}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | more | length))
    return tokenizer


def published_config(s: Sizes, *, explicit_latents: bool = True) -> dict[str, Any]:
    """config.json as published; the real file's latent config names none of its sizes."""
    latents: dict[str, Any] = {"model_type": "latent_attention"}
    if explicit_latents:
        latents |= {
            "num_latents_value": s.latents, "num_cross_heads": s.cross_heads,
            "hidden_dim": s.width, "latent_dim": s.latent_width, "cross_dim_head": s.cross_head,
            "mult": s.mult, "output_normalize": True,
        }  # fmt: skip
    text = {
        "model_type": "bidir_mistral", "architectures": ["MistralModel"], "hidden_size": s.width,
        "intermediate_size": s.mlp, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "hidden_act": "silu", "vocab_size": s.vocab,
        "rms_norm_eps": s.norm_eps, "rope_theta": s.rope_theta, "bos_token_id": 1,
        "eos_token_id": 2, "max_position_embeddings": 32768, "sliding_window": s.window,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
    }  # fmt: skip
    if s.head * s.heads != s.width:
        text["head_dim"] = s.head
    return {
        "architectures": ["NVEmbedModel"], "model_type": "nvembed", "hidden_size": s.width,
        "padding_side": "right", "add_eos": True, "add_pad_token": True,
        "is_mask_instruction": True, "mask_type": "b", "torch_dtype": "float32",
        "latent_attention_config": latents, "text_config": text,
    }  # fmt: skip


def published_weights(model: NVEmbed) -> dict[str, Tensor]:
    """The published part of the state dict: the self-attention pooling has no published names."""
    weights = model.state_dict()
    return {k: v for k, v in weights.items() if not k.startswith("self_attention_pooling.")}


def save_sharded(weights: dict[str, Tensor], folder: Path, shards: int) -> None:
    """Writes `weights` as several safetensors files and their index."""
    parts: list[dict[str, Tensor]] = [{} for _ in range(shards)]
    names = list(weights)
    for position, name in enumerate(names):
        parts[position * shards // len(names)][name] = weights[name].contiguous()
    weight_map = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        save_file(part, str(folder / file), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(value.numel() * value.element_size() for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def random_checkpoint(
    folder: Path, sizes: Sizes, *, seed: int = 0, shards: int = 3, explicit_latents: bool = True
) -> NVEmbed:
    """Writes an NV-Embed folder in the published form and returns the model in it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(sizes, seed)
    config = published_config(sizes, explicit_latents=explicit_latents)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_sharded(published_weights(model), folder, shards)
    write_tokenizer(folder, sizes.vocab)
    return model
