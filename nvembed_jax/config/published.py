"""The published models by name; sizes and templates are from their published files."""

from __future__ import annotations

from dataclasses import replace

from nvembed_jax.config.schema import (
    Attention,
    BertConfig,
    DecoderConfig,
    LatentConfig,
    ModelConfig,
    Pooling,
    ProjectionConfig,
    SelfAttentionPoolingConfig,
    TextConfig,
)

QUERY_TEMPLATE = "Instruct: {task}\nQuery: "
DEFAULT_TASK = "Given a question, retrieve passages that answer the question"
WEB_SEARCH_TASK = "Given a web search query, retrieve relevant passages that answer the query"
TAG_TEMPLATE = "<instruct>{task}\n<query>"  # bge-en-icl, bge-multilingual-gemma2
EXAMPLE_TEMPLATE = "<instruct>{task}\n<query>{query}\n<response>{passage}"
RESPONSE_SUFFIX = "\n<response>"


def mistral_7b() -> DecoderConfig:
    """Mistral-7B-v0.1's decoder."""
    return DecoderConfig(
        vocab_size=32000, embed_dim=4096, mlp_dim=14336, num_layers=32, num_heads=32,
        num_kv_heads=8,
        head_dim=128, sliding_window=4096,
    )  # fmt: skip


def qwen2_1_5b() -> DecoderConfig:
    """Qwen2-1.5B's decoder, with the table of the embedders made of it."""
    return DecoderConfig(
        vocab_size=151646, embed_dim=1536, mlp_dim=8960, num_layers=28, num_heads=12,
        num_kv_heads=2, head_dim=128, max_positions=131072, rope_theta=1e6, norm_eps=1e-6,
        qkv_bias=True,
    )  # fmt: skip


def qwen2_7b() -> DecoderConfig:
    """Qwen2-7B's decoder, with the table of the embedders made of it."""
    return DecoderConfig(
        vocab_size=151646, embed_dim=3584, mlp_dim=18944, num_layers=28, num_heads=28,
        num_kv_heads=4, head_dim=128, max_positions=131072, rope_theta=1e6, norm_eps=1e-6,
        qkv_bias=True,
    )  # fmt: skip


def nv_embed_v1() -> ModelConfig:
    """NV-Embed-v1: v2's architecture, other weights."""
    return replace(nv_embed_v2(), name="NV-Embed-v1")


def nv_embed_v2() -> ModelConfig:
    """NV-Embed-v2, and by architecture v1: 7,851,016,192 parameters."""
    return ModelConfig(
        name="NV-Embed-v2",
        family="nvembed",
        backbone=mistral_7b(),
        attention="bidirectional",
        pooling="latent",
        latent=LatentConfig(),
        text=TextConfig(
            max_length=32768,
            add_eos=True,
            mask_instruction=True,
            query_template=QUERY_TEMPLATE,
            default_task=DEFAULT_TASK,
        ),
    )


def nv_embedqa_mistral_7b_v2() -> ModelConfig:
    """nv-embedqa-mistral-7b-v2: a Mistral-7B embedder without a latent block, 512 tokens."""
    text = TextConfig(
        max_length=512, add_eos=True, query_template=QUERY_TEMPLATE, default_task=DEFAULT_TASK
    )
    return ModelConfig(
        name="nv-embedqa-mistral-7b-v2",
        family="mistral",
        backbone=mistral_7b(),
        attention="bidirectional",
        pooling="mean",
        text=text,
    )


def e5_mistral_7b() -> ModelConfig:
    """e5-mistral-7b-instruct (and SFR, Linq): causal, the last token's hidden state."""
    text = TextConfig(
        max_length=4096, add_eos=True, query_template=QUERY_TEMPLATE, default_task=DEFAULT_TASK
    )
    return ModelConfig(
        name="e5-mistral-7b-instruct", family="mistral", backbone=mistral_7b(), attention="causal",
        pooling="eos", text=text,
    )  # fmt: skip


def bge_en_icl() -> ModelConfig:
    """bge-en-icl: as e5-mistral, with tags for a template and in-context examples before a query.

    Its table has three tokens more than Mistral's: the tags.
    """
    text = TextConfig(
        max_length=32768, add_eos=True, query_template=TAG_TEMPLATE, default_task=WEB_SEARCH_TASK,
        example_template=EXAMPLE_TEMPLATE, query_suffix=RESPONSE_SUFFIX,
    )  # fmt: skip
    return ModelConfig(
        name="bge-en-icl", family="mistral", backbone=replace(mistral_7b(), vocab_size=32003),
        attention="causal", pooling="eos", text=text,
    )  # fmt: skip


def stella_en_1_5b_v5() -> ModelConfig:
    """stella_en_1.5B_v5: bidirectional Qwen2-1.5B, mean pooling, and a dense layer to 1,024."""
    text = TextConfig(
        max_length=512, add_eos=True, query_template=QUERY_TEMPLATE, default_task=WEB_SEARCH_TASK
    )
    return ModelConfig(
        name="stella_en_1.5B_v5", family="qwen2", backbone=qwen2_1_5b(), pooling="mean",
        projections=(ProjectionConfig(in_dim=1536, out_dim=1024),), text=text,
    )  # fmt: skip


def gte_qwen2_7b() -> ModelConfig:
    """gte-Qwen2-7B-instruct: bidirectional Qwen2-7B, the last token's hidden state."""
    text = TextConfig(
        max_length=32768, add_eos=True, query_template=QUERY_TEMPLATE, default_task=WEB_SEARCH_TASK
    )
    return ModelConfig(
        name="gte-Qwen2-7B-instruct", family="qwen2", backbone=qwen2_7b(), pooling="eos", text=text
    )


def gte_base() -> ModelConfig:
    """gte-base (arXiv 2308.03281): BERT-base, mean pooling, no prefixes."""
    return ModelConfig(
        name="gte-base",
        family="bert",
        backbone=BertConfig(
            vocab_size=30522, embed_dim=768, mlp_dim=3072, num_layers=12, num_heads=12
        ),
        pooling="mean",
        text=TextConfig(max_length=512),
    )


def nv_embedqa_e5_v5() -> ModelConfig:
    """nv-embedqa-e5-v5: E5-large, 335 M parameters, `query: ` and `passage: ` prefixes."""
    return ModelConfig(
        name="nv-embedqa-e5-v5",
        family="bert",
        backbone=BertConfig(
            vocab_size=30522, embed_dim=1024, mlp_dim=4096, num_layers=24, num_heads=16
        ),
        pooling="mean",
        text=TextConfig(
            max_length=512,
            prompts=(("query", "query: "), ("passage", "passage: ")),
            query_prompt="query: ",
            passage_prompt="passage: ",
        ),
    )


def minilm_l6() -> ModelConfig:
    """all-MiniLM-L6-v2: 22.7 M parameters, 384 wide."""
    return ModelConfig(
        name="all-MiniLM-L6-v2",
        family="bert",
        backbone=BertConfig(
            vocab_size=30522, embed_dim=384, mlp_dim=1536, num_layers=6, num_heads=12
        ),
        pooling="mean",
        text=TextConfig(max_length=256),
    )


def tiny(
    pooling: Pooling = "latent", attention: Attention = "bidirectional", vocab_size: int = 512
) -> ModelConfig:
    """A few hundred thousand parameters in the NV-Embed architecture, for tests and first steps."""
    return ModelConfig(
        name="tiny",
        family="nvembed",
        backbone=DecoderConfig(
            vocab_size=vocab_size, embed_dim=64, mlp_dim=128, num_layers=3, num_heads=4,
            num_kv_heads=2,
            head_dim=16, sliding_window=None,
        ),
        attention=attention,
        pooling=pooling,
        latent=LatentConfig(num_latents=16, latent_dim=64, num_cross_heads=4, cross_head_dim=32),
        self_attention_pooling=SelfAttentionPoolingConfig(num_heads=8),
        text=TextConfig(
            max_length=32768, add_eos=True, mask_instruction=True, query_template=QUERY_TEMPLATE,
            default_task=DEFAULT_TASK,
        ),
    )  # fmt: skip


NAMED_CONFIGS = {
    "nv_embed_v2": nv_embed_v2,
    "nv_embed_v1": nv_embed_v1,
    "nv_embedqa_mistral_7b_v2": nv_embedqa_mistral_7b_v2,
    "e5_mistral_7b": e5_mistral_7b,
    "bge_en_icl": bge_en_icl,
    "stella_en_1_5b_v5": stella_en_1_5b_v5,
    "gte_qwen2_7b": gte_qwen2_7b,
    "gte_base": gte_base,
    "nv_embedqa_e5_v5": nv_embedqa_e5_v5,
    "minilm_l6": minilm_l6,
    "tiny": tiny,
}
