"""Names and shapes of every parameter, from a `ModelConfig` alone: what a checkpoint must hold."""

from __future__ import annotations

from nvembed_jax.config import BertConfig, DecoderConfig, ModelConfig

Shapes = dict[str, tuple[int, ...]]


def expected_shapes(config: ModelConfig) -> Shapes:
    """Flat name -> shape. Layers are stacked on a leading axis; matrices are [out, in]."""
    backbone = config.backbone
    own = _bert(backbone) if isinstance(backbone, BertConfig) else _decoder(backbone)
    shapes = {f"backbone.{name}": shape for name, shape in own.items()}
    shapes |= {f"pooling.{name}": shape for name, shape in _pooling(config).items()}
    for i, projection in enumerate(config.projections):
        shapes[f"projections.{i}.weight"] = (projection.out_dim, projection.in_dim)
        if projection.use_bias:
            shapes[f"projections.{i}.bias"] = (projection.out_dim,)
    return shapes


def _decoder(c: DecoderConfig) -> Shapes:
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    norms = ["input_layernorm", "post_attention_layernorm"]
    if c.post_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    layer: Shapes = {f"{norm}.weight": (c.embed_dim,) for norm in norms}
    for name, size in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        layer[f"self_attn.{name}.weight"] = (size, c.embed_dim)
        if c.qkv_bias:
            layer[f"self_attn.{name}.bias"] = (size,)
    layer["self_attn.o_proj.weight"] = (c.embed_dim, queries)
    layer["mlp.gate_proj.weight"] = layer["mlp.up_proj.weight"] = (c.mlp_dim, c.embed_dim)
    layer["mlp.down_proj.weight"] = (c.embed_dim, c.mlp_dim)
    top: Shapes = {
        "embed_tokens.weight": (c.vocab_size, c.embed_dim),
        "norm.weight": (c.embed_dim,),
    }
    return top | _stacked(layer, c.num_layers)


def _bert(c: BertConfig) -> Shapes:
    tables = {
        "word_embeddings": c.vocab_size,
        "position_embeddings": c.max_positions,
        "token_type_embeddings": c.num_token_types,
    }
    top: Shapes = {f"embeddings.{name}.weight": (n, c.embed_dim) for name, n in tables.items()}
    top |= _layer_norm("embeddings.norm", c.embed_dim)
    layer: Shapes = {}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        layer |= _linear(f"self_attn.{name}", c.embed_dim, c.embed_dim)
    layer |= _layer_norm("attention_layernorm", c.embed_dim)
    layer |= _linear("mlp.up_proj", c.mlp_dim, c.embed_dim)
    layer |= _linear("mlp.down_proj", c.embed_dim, c.mlp_dim)
    layer |= _layer_norm("output_layernorm", c.embed_dim)
    return top | _stacked(layer, c.num_layers)


def _pooling(config: ModelConfig) -> Shapes:
    width = config.backbone.embed_dim
    if config.pooling == "latent" and config.latent is not None:
        c = config.latent
        inner = c.num_cross_heads * c.cross_head_dim
        shapes: Shapes = {"latents": (c.num_latents, c.latent_dim)}
        shapes |= _layer_norm("cross_attn.norm", width)
        shapes |= _layer_norm("cross_attn.norm_context", c.latent_dim)
        shapes["cross_attn.to_q.weight"] = (inner, width)
        shapes["cross_attn.to_kv.weight"] = (2 * inner, c.latent_dim)
        shapes["cross_attn.to_out.weight"] = (width, inner)
        return shapes | _geglu(width, c.mlp_multiplier)
    if config.pooling == "self_attention" and config.self_attention_pooling is not None:
        shapes = _layer_norm("self_attn.norm", width)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"self_attn.{name}.weight"] = (width, width)
        return shapes | _geglu(width, config.self_attention_pooling.mlp_multiplier)
    return {}


def _geglu(width: int, multiplier: int) -> Shapes:
    shapes = _layer_norm("feed_forward.norm", width)
    shapes |= _linear("feed_forward.up", 2 * multiplier * width, width)
    return shapes | _linear("feed_forward.down", width, multiplier * width)


def _linear(name: str, out_dim: int, in_dim: int) -> Shapes:
    return {f"{name}.weight": (out_dim, in_dim), f"{name}.bias": (out_dim,)}


def _layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _stacked(layer: Shapes, count: int) -> Shapes:
    return {f"layers.{name}": (count, *shape) for name, shape in layer.items() if count}
