"""Small random model folders in the published forms, made without the package's key tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from nvembed_jax.checkpoint import expected_shapes
from nvembed_jax.checkpoint.tree import unflatten
from nvembed_jax.config import ModelConfig

BF16 = np.dtype(ml_dtypes.bfloat16)
LAYERS, WIDTH, MLP, HEADS, KV_HEADS, HEAD, VOCAB = 3, 16, 24, 4, 2, 4, 40
TOKENIZER = {
    "tokenizer.json": json.dumps({"version": "1.0", "added_tokens": []}),
    "tokenizer_config.json": json.dumps({"model_max_length": 128}),
    "special_tokens_map.json": json.dumps({"eos_token": "</s>"}),
}
DECODER: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": MLP,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
MISTRAL = DECODER | {"architectures": ["MistralModel"], "model_type": "mistral"}
QWEN2 = DECODER | {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False,
    "max_window_layers": 2, "is_causal": False, "rope_theta": 1000000.0,
}  # fmt: skip
GEMMA2 = {k: v for k, v in DECODER.items() if k != "rope_theta"} | {
    "architectures": ["Gemma2Model"], "model_type": "gemma2", "head_dim": 8,
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 224,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
}  # fmt: skip
NVEMBED = {
    "architectures": ["NVEmbedModel"], "model_type": "nvembed", "padding_side": "right",
    "add_eos": True, "add_pad_token": True, "is_mask_instruction": True, "mask_type": "b",
    "torch_dtype": "bfloat16", "text_config": DECODER | {"model_type": "bidir_mistral"},
    "latent_attention_config": {
        "model_type": "latent_attention", "num_latents_value": 6, "num_cross_heads": 2,
        "hidden_dim": WIDTH, "latent_dim": 12, "cross_dim_head": 5, "mult": 3,
    },
}  # fmt: skip
BERT = {
    "architectures": ["BertModel"], "model_type": "bert", "vocab_size": VOCAB, "hidden_size": WIDTH,
    "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    "hidden_act": "gelu", "position_embedding_type": "absolute",
}  # fmt: skip
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
DENSE = {
    "idx": 2,
    "name": "2",
    "path": "2_Dense_1024",
    "type": "sentence_transformers.sentence_transformer.modules.dense.Dense",
}
NORMALIZE = {
    "idx": 3,
    "name": "3",
    "path": "3_Normalize",
    "type": "sentence_transformers.models.Normalize",
}


def decoder_shapes(
    prefix: str = "", *, bias: bool = False, post_norms: bool = False, head: int = HEAD
) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of a Mistral (Qwen2: `bias`; Gemma 2: `post_norms`) decoder."""
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}embed_tokens.weight": (VOCAB, WIDTH)}
    queries, keys = HEADS * head, KV_HEADS * head
    for i in range(LAYERS):
        layer = f"{prefix}layers.{i}."
        shapes[layer + "self_attn.q_proj.weight"] = (queries, WIDTH)
        shapes[layer + "self_attn.k_proj.weight"] = (keys, WIDTH)
        shapes[layer + "self_attn.v_proj.weight"] = (keys, WIDTH)
        shapes[layer + "self_attn.o_proj.weight"] = (WIDTH, queries)
        if bias:
            shapes[layer + "self_attn.q_proj.bias"] = (queries,)
            shapes[layer + "self_attn.k_proj.bias"] = (keys,)
            shapes[layer + "self_attn.v_proj.bias"] = (keys,)
        shapes[layer + "mlp.gate_proj.weight"] = (MLP, WIDTH)
        shapes[layer + "mlp.up_proj.weight"] = (MLP, WIDTH)
        shapes[layer + "mlp.down_proj.weight"] = (WIDTH, MLP)
        shapes[layer + "input_layernorm.weight"] = (WIDTH,)
        shapes[layer + "post_attention_layernorm.weight"] = (WIDTH,)
        if post_norms:
            shapes[layer + "pre_feedforward_layernorm.weight"] = (WIDTH,)
            shapes[layer + "post_feedforward_layernorm.weight"] = (WIDTH,)
    return shapes | {f"{prefix}norm.weight": (WIDTH,)}


def nvembed_shapes() -> dict[str, tuple[int, ...]]:
    """Published names and shapes of the `NVEMBED` config."""
    attend = "latent_attention_model.cross_attend_blocks.0."
    forward = "latent_attention_model.cross_attend_blocks.1."
    return decoder_shapes("embedding_model.") | {
        "latent_attention_model.latents": (6, 12),
        attend + "norm.weight": (WIDTH,), attend + "norm.bias": (WIDTH,),
        attend + "norm_context.weight": (12,), attend + "norm_context.bias": (12,),
        attend + "fn.to_q.weight": (10, WIDTH), attend + "fn.to_kv.weight": (20, 12),
        attend + "fn.to_out.weight": (WIDTH, 10),
        forward + "norm.weight": (WIDTH,), forward + "norm.bias": (WIDTH,),
        forward + "fn.net.0.weight": (6 * WIDTH, WIDTH), forward + "fn.net.0.bias": (6 * WIDTH,),
        forward + "fn.net.2.weight": (WIDTH, 3 * WIDTH), forward + "fn.net.2.bias": (WIDTH,),
    }  # fmt: skip


def bert_shapes(prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Published names and shapes of the `BERT` config, pooler included."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCAB, WIDTH),
        "embeddings.position_embeddings.weight": (64, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,), "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH), "pooler.dense.bias": (WIDTH,),
    }  # fmt: skip
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{layer}attention.{name}.weight"] = (WIDTH, WIDTH)
            shapes[f"{layer}attention.{name}.bias"] = (WIDTH,)
        shapes[layer + "intermediate.dense.weight"] = (MLP, WIDTH)
        shapes[layer + "intermediate.dense.bias"] = (MLP,)
        shapes[layer + "output.dense.weight"] = (WIDTH, MLP)
        shapes[layer + "output.dense.bias"] = (WIDTH,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}{name}.weight"] = (WIDTH,)
            shapes[f"{layer}{name}.bias"] = (WIDTH,)
    return {prefix + name: shape for name, shape in shapes.items()}


def random_tensors(
    shapes: dict[str, tuple[int, ...]], dtype: Any = BF16, seed: int = 0
) -> dict[str, np.ndarray]:
    """Normal values for every name."""
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(s, np.float32).astype(dtype) for n, s in shapes.items()}


def random_params(config: ModelConfig, dtype: Any = np.float32) -> dict[str, Any]:
    """Random parameters of a model, as NumPy arrays: nothing is compiled for them."""
    return unflatten(random_tensors(expected_shapes(config), dtype))


def write_folder(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray],
    *,
    shards: int = 1,
    tokenizer: dict[str, str] | None = None,
) -> Path:
    """Writes a Hugging Face folder; several shards get an index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name, text in (TOKENIZER if tokenizer is None else tokenizer).items():
        (folder / name).write_text(text)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names, weight_map = list(tensors), {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def add_sentence_files(
    folder: Path,
    pooling: dict[str, Any],
    *,
    dense: dict[str, Any] | None = None,
    prompts: dict[str, Any] | None = None,
    lengths: dict[str, Any] | None = None,
) -> Path:
    """Adds modules.json, 1_Pooling, and where given a dense layer, prompts and lengths."""
    modules = [*MODULES, *([DENSE] if dense else []), NORMALIZE]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if dense:
        path = folder / DENSE["path"]
        path.mkdir()
        (path / "config.json").write_text(json.dumps(dense))
        shapes: dict[str, tuple[int, ...]] = {
            "linear.weight": (dense["out_features"], dense["in_features"])
        }
        if dense.get("bias", True):
            shapes["linear.bias"] = (dense["out_features"],)
        save_file(random_tensors(shapes, np.float32), path / "model.safetensors")
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    if lengths is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(lengths))
    return folder


def all_files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def nvembed_folder(folder: Path, *, shards: int = 3, dtype: Any = BF16, **changes: Any) -> Path:
    """A random NV-Embed folder."""
    return write_folder(
        folder, NVEMBED | changes, random_tensors(nvembed_shapes(), dtype), shards=shards
    )


def bert_folder(folder: Path, **changes: Any) -> Path:
    """A random BERT folder with position ids and a pooler, which embeddings do not need."""
    tensors = random_tensors(bert_shapes(), np.float32)
    tensors["embeddings.position_ids"] = np.arange(64, dtype=np.int64)[None]
    return write_folder(folder, BERT | changes, tensors)


def dense_qwen2_folder(folder: Path) -> Path:
    """A random Qwen2 embedder with a dense layer behind its pooling, as stella has one."""
    shapes = decoder_shapes("model.", bias=True) | {"lm_head.weight": (VOCAB, WIDTH)}
    write_folder(folder, QWEN2, random_tensors(shapes), shards=2)
    dense = {
        "in_features": WIDTH,
        "out_features": 8,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    return add_sentence_files(folder, {"pooling_mode_mean_tokens": True}, dense=dense)
