"""Task descriptions and the prefixes made of them: what stands before a query or a passage.

The map covers the 56 tasks of the English MTEB benchmark, in the wording that instruction-tuned
Mistral embedders were trained with (NV-Embed paper, appendix). Scores move with the wording: report
it with a score.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

from nvembed_jax.config import TextConfig

SYMMETRIC_TYPES = frozenset(
    {"clustering", "pair_classification", "classification", "sts", "summarization"}
)

_RETRIEVAL = {
    "ArguAna": "Given a claim, retrieve documents that support or refute the claim",
    "ClimateFEVER": (
        "Given a claim about climate change, retrieve documents that support or refute the claim"
    ),
    "CQADupstackRetrieval": (
        "Given a question, retrieve detailed question descriptions from Stackexchange that"
        " are duplicates to the given question"
    ),
    "DBPedia": "Given a query, retrieve relevant entity descriptions from DBPedia",
    "FEVER": "Given a claim, retrieve documents that support or refute the claim",
    "FiQA2018": "Given a financial question, retrieve user replies that best answer the question",
    "HotpotQA": "Given a multi-hop question, retrieve documents that can help answer the question",
    "MSMARCO": "Given a web search query, retrieve relevant passages that answer the query",
    "NFCorpus": "Given a question, retrieve relevant documents that answer the question",
    "NQ": "Given a question, retrieve passages that answer the question",
    "QuoraRetrieval": (
        "Given a question, retrieve questions that are semantically equivalent to the given"
        " question"
    ),
    "SCIDOCS": (
        "Given a scientific paper title, retrieve paper abstracts that are cited by the given paper"
    ),
    "SciFact": "Given a scientific claim, retrieve documents that support or refute the claim",
    "Touche2020": "Given a question, retrieve passages that answer the question",
    "TRECCOVID": "Given a query on COVID-19, retrieve documents that answer the query",
}
_RERANKING = {
    "AskUbuntuDupQuestions": "Retrieve duplicate questions from AskUbuntu forum",
    "MindSmallReranking": "Retrieve relevant news articles based on user browsing history",
    "SciDocsRR": (
        "Given a title of a scientific paper, retrieve the titles of other relevant papers"
    ),
    "StackOverflowDupQuestions": "Retrieve duplicate questions from StackOverflow forum",
}
_CLUSTERING = {
    "ArxivClusteringP2P": (
        "Identify the main and secondary category of Arxiv papers based on the titles and abstracts"
    ),
    "ArxivClusteringS2S": (
        "Identify the main and secondary category of Arxiv papers based on the titles"
    ),
    "BiorxivClusteringP2P": (
        "Identify the main category of Biorxiv papers based on the titles and abstracts"
    ),
    "BiorxivClusteringS2S": "Identify the main category of Biorxiv papers based on the titles",
    "MedrxivClusteringP2P": (
        "Identify the main category of Medrxiv papers based on the titles and abstracts"
    ),
    "MedrxivClusteringS2S": "Identify the main category of Medrxiv papers based on the titles",
    "RedditClustering": "Identify the topic or theme of Reddit posts based on the titles",
    "RedditClusteringP2P": (
        "Identify the topic or theme of Reddit posts based on the titles and posts"
    ),
    "StackExchangeClustering": (
        "Identify the topic or theme of StackExchange posts based on the titles"
    ),
    "StackExchangeClusteringP2P": (
        "Identify the topic or theme of StackExchange posts based on the given paragraphs"
    ),
    "TwentyNewsgroupsClustering": "Identify the topic or theme of the given news articles",
}
_PAIR_CLASSIFICATION = {
    "SprintDuplicateQuestions": "Retrieve duplicate questions from Sprint forum",
    "TwitterSemEval2015": "Retrieve tweets that are semantically similar to the given tweet",
    "TwitterURLCorpus": "Retrieve tweets that are semantically similar to the given tweet",
}
_CLASSIFICATION = {
    "AmazonCounterfactualClassification": (
        "Classify a given Amazon customer review text as either counterfactual"
        " or not-counterfactual"
    ),
    "AmazonPolarityClassification": "Classify Amazon reviews into positive or negative sentiment",
    "AmazonReviewsClassification": (
        "Classify the given Amazon review into its appropriate rating category"
    ),
    "Banking77Classification": "Given a online banking query, find the corresponding intents",
    "EmotionClassification": (
        "Classify the emotion expressed in the given Twitter message into one of the six"
        " emotions: anger, fear, joy, love, sadness, and surprise"
    ),
    "ImdbClassification": (
        "Classify the sentiment expressed in the given movie review text from the IMDB dataset"
    ),
    "MassiveIntentClassification": "Given a user utterance as query, find the user intents",
    "MassiveScenarioClassification": "Given a user utterance as query, find the user scenarios",
    "MTOPDomainClassification": (
        "Classify the intent domain of the given utterance in task-oriented conversation"
    ),
    "MTOPIntentClassification": (
        "Classify the intent of the given utterance in task-oriented conversation"
    ),
    "ToxicConversationsClassification": "Classify the given comments as either toxic or not toxic",
    "TweetSentimentExtractionClassification": (
        "Classify the sentiment of a given tweet as either positive, negative, or neutral"
    ),
}
_STS = dict.fromkeys(
    (
        "BIOSSES",
        "SICK-R",
        "STS12",
        "STS13",
        "STS14",
        "STS15",
        "STS16",
        "STS17",
        "STS22",
        "STSBenchmark",
    ),
    "Retrieve semantically similar text.",
)
_SUMMARIZATION = {
    "SummEval": "Given a news summary, retrieve other semantically similar summaries",
}


class TaskInstruction(NamedTuple):
    """A task's type, its description, and whether both sides carry the description."""

    type: str
    instruction: str
    symmetric: bool


MTEB_INSTRUCTIONS: dict[str, TaskInstruction] = {
    name: TaskInstruction(kind, instruction, kind in SYMMETRIC_TYPES)
    for kind, tasks in (
        ("retrieval", _RETRIEVAL),
        ("reranking", _RERANKING),
        ("clustering", _CLUSTERING),
        ("pair_classification", _PAIR_CLASSIFICATION),
        ("classification", _CLASSIFICATION),
        ("sts", _STS),
        ("summarization", _SUMMARIZATION),
    )
    for name, instruction in tasks.items()
}


def instruction_for(task_name: str) -> TaskInstruction:
    """The instruction of an MTEB task by its exact name; ValueError names the nearest one."""
    if task_name in MTEB_INSTRUCTIONS:
        return MTEB_INSTRUCTIONS[task_name]
    by_fold = {name.casefold(): name for name in MTEB_INSTRUCTIONS}
    near = difflib.get_close_matches(str(task_name).casefold(), by_fold, n=1)
    mend = f"did you mean {by_fold[near[0]]!r}?" if near else "give a task description instead"
    raise ValueError(f"no instruction is known for the task {task_name!r}; {mend}")


def query_prefix(text: TextConfig, task: str | None = None) -> str:
    """What stands before a query: the filled template, or the model's raw query prompt.

    Args:
        task: a task description; None: the model's default task, else its `query_prompt`.

    Raises:
        ValueError: a task for a model that has no template.
    """
    if task is not None and text.query_template is None:
        raise ValueError(
            f"this model takes no task descriptions (it has no query template); got task={task!r}. "
            "Use prompt= for a raw prefix"
        )
    task = text.default_task if task is None else task
    if text.query_template is None or task is None:
        return text.query_prompt
    return _fill(text.query_template, task=task)


def passage_prefix(text: TextConfig) -> str:
    """What stands before a passage; "" for NV-Embed, whose passages carry no instruction."""
    return text.passage_prompt


def examples_prefix(text: TextConfig, task: str | None, examples: Sequence[Any]) -> str:
    """In-context examples and then the query's own prefix (bge-en-icl).

    Each (query, passage) pair fills `example_template`; blank lines part the blocks. The query
    and `text.query_suffix` follow this prefix.

    Raises:
        ValueError: examples for a model without an example template, or one that is no pair.
    """
    last = query_prefix(text, task)
    if not examples:
        return last
    if text.example_template is None:
        raise ValueError(
            "this model does not learn from in-context examples (it has no example template); "
            "leave examples away"
        )
    for i, example in enumerate(examples):
        pair = isinstance(example, (tuple, list)) and len(example) == 2
        if not pair or not all(isinstance(part, str) for part in example):
            raise ValueError(
                f"examples[{i}] must be a (query, passage) pair of strings; got {example!r}"
            )
    described = (text.default_task if task is None else task) or ""
    blocks = [_fill(text.example_template, task=described, query=q, passage=p) for q, p in examples]
    return "\n\n".join([*blocks, last])


def _fill(template: str, **slots: str) -> str:
    """Fills {slots} in one pass, so that braces in the texts put in stay as they are."""
    parts = template.split("{")
    out = [parts[0]]
    for part in parts[1:]:
        name, closed, rest = part.partition("}")
        out.append(slots[name] + rest if closed and name in slots else "{" + part)
    return "".join(out)
