"""NV-Embed in plain PyTorch, written from the published description: what the parity tests trust.

Parameters carry the published names, so a `state_dict` is a published checkpoint. It shares no
code with `nvembed_jax`: where the two agree, two readings of one description agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of an NV-Embed; the defaults are small, and odd wherever a mix-up could hide."""

    vocab: int = 400
    width: int = 64
    mlp: int = 112
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head: int = 16
    rope_theta: float = 5000.0
    norm_eps: float = 1e-3  # large enough to be felt
    window: int = 20  # of the causal mask only
    latents: int = 24  # 0: no latent block
    latent_width: int = 48
    cross_heads: int = 4
    cross_head: int = 32
    mult: int = 3
    pool_heads: int = 8  # 0: no self-attention pooling


class RMSNorm(nn.Module):
    """Scales by the root mean square; no mean is taken off, no bias added."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary positions 0..T-1 on x [B, heads, T, head]: dimension i turns with i + head/2."""
    half = x.shape[-1] // 2
    exponents = torch.arange(half, dtype=torch.float64) / half
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * theta**-exponents
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Attention on [B, heads, T, head]; `allowed` [B, 1, T, S]: True where a key may be seen."""
    parts = []
    for start in range(0, q.shape[-2], 2048):  # bounds the score matrix of a very long text
        rows = slice(start, start + 2048)
        scores = q[..., rows, :] @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if allowed is not None:
            scores = scores.masked_fill(~allowed[..., rows, :], -math.inf)
        parts.append(scores.softmax(-1) @ v)
    return torch.cat(parts, dim=-2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * head] -> [B, heads, T, head]; the head is the outer factor."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(-2)


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.width, s.heads * s.head, bias=False)
        self.k_proj = nn.Linear(s.width, s.kv_heads * s.head, bias=False)
        self.v_proj = nn.Linear(s.width, s.kv_heads * s.head, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head, s.width, bias=False)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        s = self.s
        q = rotate(split_heads(self.q_proj(x), s.heads), s.rope_theta)
        k = rotate(split_heads(self.k_proj(x), s.kv_heads), s.rope_theta)
        v = split_heads(self.v_proj(x), s.kv_heads)
        k, v = (t.repeat_interleave(s.heads // s.kv_heads, dim=1) for t in (k, v))
        return self.o_proj(join_heads(attend(q, k, v, allowed)))


class SwiGLU(nn.Module):
    """The decoder's feed-forward."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.width, s.mlp, bias=False)
        self.up_proj = nn.Linear(s.width, s.mlp, bias=False)
        self.down_proj = nn.Linear(s.mlp, s.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(s.width, s.norm_eps)
        self.self_attn = SelfAttention(s)
        self.post_attention_layernorm = RMSNorm(s.width, s.norm_eps)
        self.mlp = SwiGLU(s)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), allowed)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Mistral without a language-model head; the final norm is applied."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab, s.width)
        self.layers = nn.ModuleList(DecoderLayer(s) for _ in range(s.layers))
        self.norm = RMSNorm(s.width, s.norm_eps)
        self.window = s.window

    def forward(self, ids: Tensor, mask: Tensor, causal: bool) -> Tensor:
        length = ids.shape[1]
        allowed = mask[:, None, None, :].expand(-1, 1, length, -1)
        if causal:
            before = torch.ones(length, length, dtype=torch.bool).tril()
            # A padding row sees itself: without any key it would be NaN.
            own = torch.eye(length, dtype=torch.bool)
            allowed = (allowed & before & ~before.tril(-self.window)) | own
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, allowed)
        return self.norm(x)


class GEGLU(nn.Module):
    """The first half is the value, the second its gate; GELU in the erf form."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)


def geglu_net(width: int, mult: int) -> nn.Sequential:
    """Linear, GEGLU, Linear: parameters `0.*` and `2.*`."""
    return nn.Sequential(
        nn.Linear(width, 2 * mult * width), GEGLU(), nn.Linear(mult * width, width)
    )


class CrossAttention(nn.Module):
    """Attention from hidden states to latents; no mask, no biases."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        inner = s.cross_heads * s.cross_head
        self.heads = s.cross_heads
        self.to_q = nn.Linear(s.width, inner, bias=False)
        self.to_kv = nn.Linear(s.latent_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, s.width, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        k, v = self.to_kv(context).chunk(2, dim=-1)
        q, k, v = (split_heads(t, self.heads) for t in (self.to_q(x), k, v))
        return self.to_out(join_heads(attend(q, k, v)))


class FeedForward(nn.Module):
    """Holds the GEGLU net under the published name `net`."""

    def __init__(self, width: int, mult: int) -> None:
        super().__init__()
        self.net = geglu_net(width, mult)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PreNorm(nn.Module):
    """LayerNorm before `fn`, and before its context where there is one."""

    def __init__(self, width: int, fn: nn.Module, context_width: int | None = None) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(width, eps=1e-5)
        if context_width is not None:
            self.norm_context = nn.LayerNorm(context_width, eps=1e-5)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            return self.fn(self.norm(x))
        return self.fn(self.norm(x), self.norm_context(context))


class LatentAttention(nn.Module):
    """Hidden states attend to learned latents, then a GEGLU feed-forward; both with residuals."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(s.latents, s.latent_width))
        cross = PreNorm(s.width, CrossAttention(s), s.latent_width)
        feed_forward = PreNorm(s.width, FeedForward(s.width, s.mult))
        self.cross_attend_blocks = nn.ModuleList([cross, feed_forward])

    def forward(self, x: Tensor) -> Tensor:
        cross, feed_forward = self.cross_attend_blocks
        x = x + cross(x, self.latents.expand(len(x), -1, -1))
        return x + feed_forward(x)


class PoolFeedForward(nn.Module):
    """Pre-norm GEGLU net of the self-attention pooling."""

    def __init__(self, width: int, mult: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.net = geglu_net(width, mult)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.norm(x))


class SelfAttentionPooling(nn.Module):
    """One attention layer over the real tokens, no positions, then a feed-forward; residuals."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.heads = s.pool_heads
        self.norm = nn.LayerNorm(s.width, eps=1e-5)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(s.width, s.width, bias=False))
        self.feed_forward = PoolFeedForward(s.width, s.mult)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (split_heads(p(y), self.heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        x = x + self.o_proj(join_heads(attend(q, k, v, mask[:, None, None, :])))
        return x + self.feed_forward(x)


class NVEmbed(nn.Module):
    """The whole model: decoder, pooling, L2 normalisation."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding_model = Decoder(sizes)
        if sizes.latents:
            self.latent_attention_model = LatentAttention(sizes)
        if sizes.pool_heads:
            self.self_attention_pooling = SelfAttentionPooling(sizes)

    def forward(
        self, ids: Tensor, mask: Tensor, pool_mask: Tensor, *, pooling: str, attention: str
    ) -> Tensor:
        """ids, mask and pool_mask [B, T], right-padded -> unit embeddings [B, width]."""
        x = self.embedding_model(ids, mask, causal=attention == "causal")
        if pooling == "eos":
            return F.normalize(x[torch.arange(len(x)), mask.sum(1) - 1], dim=-1)
        if pooling == "latent":
            x = self.latent_attention_model(x)
        elif pooling == "self_attention":
            x = self.self_attention_pooling(x, mask)
        elif pooling != "mean":
            raise ValueError(f"unknown pooling {pooling!r}")
        weights = pool_mask.to(x.dtype)[..., None]
        return F.normalize((x * weights).sum(1) / weights.sum(1), dim=-1)


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Fills every parameter, norms and biases too; activations and scores stay of size one."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        value.normal_(generator=generator)
        if name.endswith("bias"):
            value.mul_(0.1)
        elif value.ndim == 1:
            value.mul_(0.2).add_(1.0)
        elif name.endswith("latents"):
            value.mul_(0.02)  # small: the epsilon of their LayerNorm is felt
        elif "embed" not in name.rsplit(".", 2)[-2]:
            value.div_(math.sqrt(value.shape[1]))


def random_model(sizes: Sizes, seed: int = 0) -> NVEmbed:
    """A model with random weights, in float32 and without gradients."""
    model = NVEmbed(sizes).requires_grad_(False).eval()
    randomise(model, seed)
    return model
