"""`TokenBatch`: token ids and what may be attended to and pooled; the one thing that flows from
`text` to `model`.

Two layouts share it. *Padded*: a row a text, right-padded. *Packed*: several texts a row, told
apart by `segment_ids`; then `num_texts` says how many embeddings come out.
"""

from __future__ import annotations

from typing import Any

import flax.struct


@flax.struct.dataclass
class TokenBatch:
    """One batch of tokenised texts.

    Attributes:
        input_ids: int32 [B, T] (packed: [R, T]).
        attention_mask: bool [B, T]; True = a real token.
        pool_mask: bool [B, T]; True = a token whose hidden state is pooled (instructions are not).
        segment_ids: None (padded), or int32 [R, T]: the index in 0..num_texts-1 of the text that a
            token
            belongs to, -1 for padding. A text never spans two rows.
        positions: None (padded: 0..T-1), or int32 [R, T]: the position of a token within its text.
        num_texts: static; None (padded: B), or the number of texts packed (slots without a token
            give zeros).
    """

    input_ids: Any
    attention_mask: Any
    pool_mask: Any
    segment_ids: Any = None
    positions: Any = None
    num_texts: int | None = flax.struct.field(pytree_node=False, default=None)
