"""The task map, and the prefixes made of a model's templates."""

from __future__ import annotations

from collections import Counter

import pytest

from nvembed_jax.config import DEFAULT_TASK, TextConfig, nv_embed_v2, nv_embedqa_e5_v5
from nvembed_jax.text.instructions import (
    MTEB_INSTRUCTIONS,
    examples_prefix,
    instruction_for,
    passage_prefix,
    query_prefix,
)

IN_CONTEXT = TextConfig(
    query_template="<instruct>{task}\n<query>",
    example_template="<instruct>{task}\n<query>{query}\n<response>{passage}",
    query_suffix="\n<response>",
    default_task="answer",
)


def test_map_covers_the_56_tasks_by_type():
    assert Counter(item.type for item in MTEB_INSTRUCTIONS.values()) == {
        "retrieval": 15, "reranking": 4, "clustering": 11, "pair_classification": 3,
        "classification": 12, "sts": 10, "summarization": 1,
    }  # fmt: skip


def test_instructions_are_single_clean_lines():
    for name, item in MTEB_INSTRUCTIONS.items():
        assert item.instruction == " ".join(item.instruction.split()), name
        assert len(item.instruction) > 20, name


def test_only_retrieval_and_reranking_leave_one_side_bare():
    bare = {item.type for item in MTEB_INSTRUCTIONS.values() if not item.symmetric}
    assert bare == {"retrieval", "reranking"}


def test_unknown_task_names_the_nearest():
    assert instruction_for("NFCorpus").type == "retrieval"
    with pytest.raises(ValueError, match="did you mean 'NFCorpus'"):
        instruction_for("nfcorpus")
    with pytest.raises(ValueError, match="give a task description"):
        instruction_for("qqqqq")


def test_nv_embed_prefixes():
    text = nv_embed_v2().text
    assert query_prefix(text, "find it") == "Instruct: find it\nQuery: "
    assert query_prefix(text) == f"Instruct: {DEFAULT_TASK}\nQuery: "
    assert passage_prefix(text) == ""


def test_e5_prefixes_are_raw_prompts_and_take_no_task():
    text = nv_embedqa_e5_v5().text
    assert (query_prefix(text), passage_prefix(text)) == ("query: ", "passage: ")
    with pytest.raises(ValueError, match="takes no task descriptions"):
        query_prefix(text, "find it")


def test_braces_in_a_task_stay_as_they_are():
    prefix = query_prefix(nv_embed_v2().text, "find {task} in {x} and }{")
    assert prefix == "Instruct: find {task} in {x} and }{\nQuery: "


def test_examples_stand_before_the_query_as_blocks():
    prefix = examples_prefix(IN_CONTEXT, "define", [("q1", "p1"), ("q {task}", "p2")])
    assert prefix + "q3" + IN_CONTEXT.query_suffix == (
        "<instruct>define\n<query>q1\n<response>p1\n\n"
        "<instruct>define\n<query>q {task}\n<response>p2\n\n"
        "<instruct>define\n<query>q3\n<response>"
    )


def test_no_examples_give_the_plain_query_prefix():
    assert examples_prefix(IN_CONTEXT, None, []) == "<instruct>answer\n<query>"


def test_examples_for_a_model_without_a_template_are_an_error():
    with pytest.raises(ValueError, match="in-context examples"):
        examples_prefix(nv_embed_v2().text, None, [("q", "p")])


@pytest.mark.parametrize("bad", ["qp", ("q",), ("q", 1), None])
def test_example_that_is_no_pair_is_an_error(bad):
    with pytest.raises(ValueError, match=r"examples\[1\] must be a \(query, passage\) pair"):
        examples_prefix(IN_CONTEXT, None, [("q", "p"), bad])
