"""Text handling of a published folder: its prompts, its query template, its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nvembed_jax.checkpoint.sentence_layout import SentenceLayout
from nvembed_jax.config import DEFAULT_TASK, QUERY_TEMPLATE, TextConfig

TAG_TEMPLATE = "<instruct>{task}\n<query>"  # bge-en-icl, bge-multilingual-gemma2
EXAMPLE_TEMPLATE = "<instruct>{task}\n<query>{query}\n<response>{passage}"
RESPONSE_SUFFIX = "\n<response>"
_QUERY_PROMPTS = ("query", "retrieval.query", "s2p_query", "web_search_query")
_PASSAGE_PROMPTS = ("passage", "document", "retrieval.passage", "corpus")
_GENERIC_NAMES = re.compile(
    r"(model|checkpoint|snapshot|output|final|[0-9a-f]{40})?", re.IGNORECASE
)
_TOKENIZER_FILES = (
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer_config.json",
    "tokenizer.json",
)


def instruct_text(
    folder: Path,
    layout: SentenceLayout,
    *,
    add_eos: bool,
    mask_instruction: bool,
    max_length: int,
    family: str,
) -> TextConfig:
    """Text handling of a decoder: tasks go into the query template, passages stay bare."""
    prompts = dict(layout.prompts)
    template, example, suffix = QUERY_TEMPLATE, None, ""
    if family in ("mistral", "gemma2") and _has_tags(folder, layout):
        template = TAG_TEMPLATE
        if family == "mistral":
            example, suffix = EXAMPLE_TEMPLATE, RESPONSE_SUFFIX
    query = prompts.get("query", "")
    return TextConfig(
        max_length=max_length,
        add_eos=add_eos,
        mask_instruction=mask_instruction,
        query_template=template,
        default_task=_default_task(template, prompts),
        example_template=example,
        query_suffix=suffix,
        prompts=layout.prompts,
        query_prompt=query,
        passage_prompt=_first(prompts, _PASSAGE_PROMPTS),
        default_prompt=prompts.get(layout.default_prompt_name or "", ""),
        lowercase=layout.lowercase,
    )


def bert_text(
    folder: Path, raw: dict[str, Any], layout: SentenceLayout, max_length: int
) -> TextConfig:
    """Text handling of a BERT encoder: raw prefixes, those of E5 where the folder is an E5."""
    prompts = dict(layout.prompts)
    query, passage = prompts.get("query", ""), _first(prompts, _PASSAGE_PROMPTS)
    named = layout.prompts
    origin = (folder.resolve().name, str(raw.get("_name_or_path", "")), _hub_name(folder) or "")
    if not query and not passage and any(_is_e5(name) for name in origin):
        query, passage = "query: ", "passage: "
        named = tuple({**prompts, "query": query, "passage": passage}.items())
    return TextConfig(
        max_length=max_length,
        prompts=named,
        query_prompt=query,
        passage_prompt=passage,
        default_prompt=prompts.get(layout.default_prompt_name or "", ""),
        lowercase=layout.lowercase,
    )


def model_name(folder: Path, raw: dict[str, Any], is_sentence_folder: bool) -> str:
    """The folder's name; a generic one gives way to the hub's, the origin's or the parent's."""
    folder = folder.resolve()
    hub = _hub_name(folder)
    if hub or not _GENERIC_NAMES.fullmatch(folder.name):
        return hub or folder.name
    # In a sentence-transformers folder `_name_or_path` is often the model it was fine-tuned from.
    origin = "" if is_sentence_folder else str(raw.get("_name_or_path") or "")
    return origin.rstrip("/").rsplit("/", 1)[-1] or folder.parent.name or folder.name


def _hub_name(folder: Path) -> str | None:
    """ "name" of .../models--owner--name/snapshots/<revision> in the Hugging Face cache."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.rsplit("--", 1)[-1]
    return None


def _default_task(template: str, prompts: dict[str, str]) -> str | None:
    """The task in the folder's own query prompt, if that follows the template.

    None: it does not, and stands before queries as it is, as long as no task is given.
    """
    before, after = template.split("{task}")
    for name in _QUERY_PROMPTS:
        prompt = prompts.get(name, "")
        if (
            prompt.startswith(before)
            and prompt.endswith(after)
            and len(prompt) > len(before + after)
        ):
            return prompt[len(before) : -len(after)]
    return None if prompts.get("query") else DEFAULT_TASK


def _has_tags(folder: Path, layout: SentenceLayout) -> bool:
    if any("<instruct>" in prompt for _, prompt in layout.prompts):
        return True
    files = (folder / layout.transformer / name for name in _TOKENIZER_FILES)
    return any(b'"<instruct>"' in file.read_bytes() for file in files if file.is_file())


def _is_e5(name: str) -> bool:
    return re.search(r"(^|[-_/.])e5([-_/.]|$)", name.lower()) is not None


def _first(prompts: dict[str, str], names: tuple[str, ...]) -> str:
    return next((prompts[name] for name in names if prompts.get(name)), "")
