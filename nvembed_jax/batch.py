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


@flax.struct.dataclass
class ContrastiveBatch:
    """One training batch: B queries, each with P passages, its positive first, then its negatives.

    Attributes:
        queries: B texts. passages: B * P texts, a query's own one after the other (P N..N P N..N).
        query_ids: int32 [B], passage_ids: int32 [B, P]: hashes of the texts; equal texts have
            equal ids.
        known_ids: int32 [B, K]: ids of all texts known to be positives of the query; 0 fills up.
        group_ids: int32 [B]: examples of one group are positives of each other; -1: none.
        source_ids: int32 [B]: the dataset an example is from.
        passage_mask: bool [B, P]; False: a slot without a passage.
        in_batch: bool [B]: whether passages of other examples are negatives of this one.
        weight: float32 [B]: of the example in the mean.
        teacher_scores: float32 [B, P] or None: a teacher's scores of a query's own passages.
        teacher_queries, teacher_passages: float32 [B, E], [B * P, E] or None: a teacher's
            embeddings.
    """

    queries: TokenBatch
    passages: TokenBatch
    query_ids: Any
    passage_ids: Any
    known_ids: Any
    group_ids: Any
    source_ids: Any
    passage_mask: Any
    in_batch: Any
    weight: Any
    teacher_scores: Any = None
    teacher_queries: Any = None
    teacher_passages: Any = None
