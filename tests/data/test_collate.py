"""Rows to tokens: templates, choices, ids, static shapes."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_jax.config import TextConfig, tiny
from nvembed_jax.data.blend import BlendConfig, Row
from nvembed_jax.data.collate import Collator, text_id
from nvembed_jax.data.examples import Example
from nvembed_jax.text.tokenizer import Tokenizer

TEXT = tiny().text


def row(example: Example, *, seed: int = 0, **changes) -> Row:
    plain = Row(example, 0, False, True, (), np.random.default_rng(seed))
    return plain._replace(**changes)


def collator(text: TextConfig = TEXT, **settings) -> Collator:
    fields = {"batch_size": 2, "negatives": 2, "query_length": 48, "passage_length": 24}
    return Collator(BlendConfig(data="x", **{**fields, **settings}), Tokenizer.packaged(text))


def decoded(collate: Collator, encoded) -> str:
    return collate.tokenizer.backend.decode(encoded.input_ids.tolist())


def test_queries_carry_the_instruction_and_passages_of_symmetric_tasks_too():
    example = Example(query="red", positives=("blue",), task="Find a colour")
    collate = collator()
    plain = collate([row(example)])
    assert "Instruct: Find a colour" in decoded(collate, plain.queries[0])
    assert "Instruct" not in decoded(collate, plain.passages[0][0])
    both = collate([row(example, symmetric=True)])
    assert "Instruct: Find a colour" in decoded(collate, both.passages[0][0])
    assert plain.queries[0].pool_start > 0


def test_texts_end_in_eos_also_when_cut():
    long = "word " * 200
    collate = collator()
    made = collate([row(Example(query=long, positives=(long,), negatives=(long + "x",)))])
    for encoded in (*made.queries, *made.passages[0]):
        assert encoded.input_ids[-1] == collate.tokenizer.eos_id
    assert len(made.passages[0][0].input_ids) == 24


def test_one_positive_and_some_negatives_are_drawn_by_the_row():
    example = Example(
        query="q", positives=("p1", "p2", "p3"), negatives=tuple(f"n{i}" for i in range(9))
    )
    texts = [collator()([row(example, seed=seed)]).texts[0] for seed in range(30)]
    assert {t.passages[0] for t in texts} == {"p1", "p2", "p3"}
    assert all(len(t.passages) == 3 for t in texts)
    assert len({t.passages[1:] for t in texts}) > 10
    again = collator()([row(example, seed=4)]).texts[0]
    assert again == texts[4]


def test_all_positives_of_a_query_are_known():
    example = Example(query="q", positives=("p1", "p2"), negatives=("n",))
    known = collator()([row(example)]).ids["known_ids"][0]
    assert set(known) == {text_id("p1"), text_id("p2"), 0}


def test_scores_follow_the_drawn_negatives():
    example = Example(
        query="q", positives=("p",), negatives=("n0", "n1", "n2", "n3"), positive_score=0.9,
        negative_scores=(0.0, 0.1, 0.2, 0.3),
    )  # fmt: skip
    made = collator()([row(example, seed=3)])
    kept = [int(text[1]) for text in made.texts[0].passages[1:]]
    np.testing.assert_allclose(made.ids["teacher_scores"][0], [0.9, *(i / 10 for i in kept)])


def test_rows_without_enough_negatives_get_masked_slots():
    rows = [
        row(Example(query="q1", positives=("p1",), negatives=("n1", "n2"))),
        row(Example(query="q2", positives=("p2",))),
    ]
    collate = collator()
    made = collate(rows)
    needs = collate.needs(made)
    arrays = collate.arrays(made, needs)
    assert needs[2] == 3
    assert arrays["passage_mask"].tolist() == [[True] * 3, [True, False, False]]
    assert arrays["passages"].input_ids.shape == (6, needs[1])
    assert arrays["passages"].attention_mask[4:].sum(axis=1).tolist() == [1, 1]
    assert arrays["passage_ids"][1].tolist() == [text_id("p2"), 0, 0]


def test_shapes_are_buckets():
    collate = collator(length_buckets=0)
    made = collate([row(Example(query="q", positives=("p",)))])
    assert collate.needs(made) == (48, 24, 1)
    few = collator(length_buckets=2)
    assert few.needs(few([row(Example(query="q", positives=("p",)))]))[1] == 16


def test_shots_stand_before_the_query_as_far_as_they_fit():
    text = TextConfig(
        add_eos=True,
        query_template="<instruct>{task}\n<query>",
        default_task="t",
        example_template="<instruct>{task}\n<query>{query}\n<response>{passage}",
    )
    shots = tuple(Example(query=f"shot{i}", positives=(f"answer{i}",)) for i in range(3))
    example = Example(query="the query", positives=("p",))
    collate = collator(text, query_length=512)
    said = decoded(collate, collate([row(example, shots=shots)]).queries[0])
    assert all(f"answer{i}" in said for i in range(3))
    assert said.endswith("the query</s>") or "the query" in said[-20:]
    narrow = collator(text, query_length=48)
    said = decoded(narrow, narrow([row(example, shots=shots)]).queries[0])
    assert "the query" in said
    assert "answer2" not in said


def test_equal_texts_have_equal_ids():
    assert text_id("a b") == text_id(" a b\n") != text_id("a c")
    assert 0 < text_id("") < 2**31


def test_ids_of_many_texts_rarely_collide():
    ids = {text_id(str(i)) for i in range(20000)}
    assert len(ids) >= 19998


@pytest.mark.parametrize("task", [None, "Find a colour"])
def test_models_without_a_template_take_their_prompts(task):
    text = TextConfig(query_prompt="query: ", passage_prompt="passage: ")
    collate = collator(text)
    made = collate([row(Example(query="red", positives=("blue",), task=task))])
    assert made.texts[0].query_prefix == "query: "
    assert made.texts[0].passage_prefix == "passage: "
