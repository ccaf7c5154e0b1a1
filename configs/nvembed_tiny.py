"""nvembed-tiny, second part: the two stages of NV-Embed on the distilled model.

Source: ours, after arXiv 2405.17428 (NV-Embed, v3), sections 3 and 4.
Known: stage 1 on retrieval pairs with in-batch and mined hard negatives; stage 2 on a blend with
    classification and inference sets, without in-batch negatives.
Assumed: every number. The teacher stays: its similarities hold what the few public pairs do not
    teach; temperature 0.05; learning rates 5e-4 and 2e-4; 2,000 and 600 steps of 64.
Hardware: 2 CPU cores, 22 min (an estimate).
Expected: no published score; experiments/016_nvembed_tiny has ours.

    nvembed train --config configs/nvembed_tiny.py:MINED --workdir run_stages \\
        --config.model.path=run_distill/model --config.teacher=teacher

MINED: the pairs of nvembed_tiny_distill.py, which must stand beside this file, with negatives.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nvembed_tiny_distill.py")
LABELLED = ("banking77", "hwu64", "snips")  # their instructions are their own
SYMMETRIC = ("disfl_qa", "mnli_triples", "snli_triples")  # the instruction on both sides
QUESTION = "Given a question, retrieve passages that answer the question"
TASKS = {
    "arxiv_title_abstract": "Given the title of a scientific paper, retrieve its abstract",
    "msdocs_sections": "Given a heading, retrieve the documentation that stands under it",
    "open_trivia": "Given a trivia question, retrieve its answer",
    "wordnet_definitions": "Given a word or a phrase, retrieve its definition",
    "squad_sentences": "Given a question, retrieve the sentence that answers it",
    "openstax": "Given a term or a heading, retrieve the text that explains it",
    "medquad": "Given a medical question, retrieve passages that answer the question",
    "fever": "Given a claim, retrieve documents that support or refute the claim",
    "tldr": "Given a description of a task, retrieve the shell command that does it",
    "disfl_qa": "Retrieve questions that are semantically equivalent to the given question",
    "mnli_triples": "Retrieve semantically similar text",
    "snli_triples": "Retrieve semantically similar text",
    "powershell_cmdlets": "Given a description, retrieve the command that does it",
    "policy_qa": "Given a question about a privacy policy, retrieve passages that answer it",
    "python_peps": "Given a heading, retrieve the documentation that stands under it",
    "squad_paragraphs": QUESTION,
    "php_functions": "Given a description, retrieve the function that does it",
    "scitldr": "Given a title or a summary, retrieve the abstract of the paper",
    "qnli": QUESTION,
    "til": "Given a heading, retrieve the article that stands under it",
}


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of NAME.jsonl.gz with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "nvembed_tiny"
    config.model.path = "run_distill/model"
    config.save_stages = True
    config.stages = ("stage1", "stage2")
    blend = config.stage1.sources.to_dict()
    for name, task in TASKS.items():
        blend[name] |= {"tasks": ("", task), "symmetric": name in SYMMETRIC}
    retrieval = {name: source for name, source in blend.items() if name not in LABELLED}
    widths = tuple(config.stage1.loss.matryoshka_dims)
    config.stage1 = _stage(retrieval, widths, steps=2000, negatives=1, rate=5e-4)
    config.stage2 = _stage(blend, widths, steps=600, negatives=3, rate=2e-4)
    config.stage2.in_batch = config.stage2.loss.in_batch = False
    return config


def _stage(
    sources: dict[str, dict],
    widths: tuple[int, ...],
    *,
    steps: int,
    negatives: int,
    rate: float,
) -> ConfigDict:
    return ConfigDict(
        {
            "data": "",
            "sources": sources,
            "steps": steps,
            "batch_size": 64,
            "negatives": negatives,
            "query_length": 48,
            "passage_length": 64,
            "in_batch": True,
            "loss": {
                "contrastive": 0.1,
                "temperature": 0.05,
                "in_batch": True,
                "false_negative_margin": 0.1,
                "matryoshka_dims": widths,
                "distill_similarity": 10.0,
                "distill_cosine": 1.0,
            },
            "optimizer": {"learning_rate": rate, "warmup_steps": 100, "schedule": "linear"},
        }
    )
