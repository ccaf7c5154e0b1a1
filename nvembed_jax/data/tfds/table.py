"""The tables of docs/data.md, made from the registry so that they cannot drift from it."""

from __future__ import annotations

from collections.abc import Iterable

from nvembed_jax.data.tfds.registry import PublicSet, all_sets

# The paper's sets without a builder, and why.
NOT_DONE = {
    "ArguAna": "the public retrieval version holds test queries only; the layout of the original "
    "corpus with a training part could not be checked",
    "STS22": "the organisers publish links to news articles and scores, not the texts",
}
DIFFERENT = {
    "StackExchange": "built from the site dump (question -> accepted answer)",
    "PAQ": "the first 1,000,000 of 65 million questions",
    "BioASQ": "question -> snippets, not whole abstracts",
    "HoVer": "supported claims; articles from the HotpotQA corpus",
    "MASSIVE scenario/intent": "English",
    "MTOP domain/intent": "English",
    "AmazonReviews": "English",
    "AmazonCounterfactual": "English",
    "arXiv raw": "label: the first category",
}
# Also run on the origin's own files, not only on rows made in their format.
_CHECKED = """
ag_news amazon_counterfactual arxiv_title_abstract asset_simplification banking77 cacm cisi
datatalks_faq disfl_qa fever flickr8k_captions hwu64 medical_rqe medquad mnli_triples mrpc
newsgroups20 newsgroups20_subjects nl2bash open_trivia policy_qa qnli quora scitldr search_snippets
snips snli_triples squad_paragraphs squad_sentences sst2 stackoverflow_titles sts12_15
stsb_train_dev til tldr tweet_irony tweet_sentiment wikiqa
"""
CHECKED = frozenset(_CHECKED.split())
ADDED = {
    "realsumm": "for evaluation only; its origin is a Python pickle",
}


def markdown_tables() -> str:
    """Two tables: the sets of the paper, done and not done, and the others."""
    paper: dict[str, list[PublicSet]] = {}
    others = []
    for public in all_sets().values():
        if public.paper is None:
            others.append(public)
        else:
            paper.setdefault(public.paper, []).append(public)
    rows = [
        (
            name,
            "yes",
            _checked(sets),
            _names(sets),
            sets[0].kind,
            _licences(sets),
            _note(name, sets),
        )
        for name, sets in paper.items()
    ]
    rows += [(name, "**no**", "", "", "", "", reason) for name, reason in NOT_DONE.items()]
    first = _table(
        ("in the paper", "done", "on real files", "`tfds:` names", "kind", "licence", "notes"), rows
    )
    rows = [
        (
            f"`{public.name}`",
            _checked([public]),
            public.kind,
            f"<{public.origin}>",
            public.licence,
            public.by_hand,
        )
        for public in others
    ]
    rows += [(f"`{name}`: **not done**", "", "", "", "", reason) for name, reason in ADDED.items()]
    return (
        first
        + "\n\n"
        + _table(("name", "on real files", "kind", "origin", "licence", "notes"), rows)
    )


def _names(sets: list[PublicSet]) -> str:
    names = [public.name for public in sets]
    stem = names[0].rpartition("_")[0]
    if len(names) > 4 and all(name.startswith(f"{stem}_") for name in names):
        return f"`{stem}/` " + " ".join(f"`{name.removeprefix(f'{stem}_')}`" for name in names)
    return " ".join(f"`{name}`" for name in names)


def _checked(sets: list[PublicSet]) -> str:
    return "yes" if all(public.name in CHECKED for public in sets) else ""


def _licences(sets: list[PublicSet]) -> str:
    return "; ".join(dict.fromkeys(public.licence for public in sets))


def _note(name: str, sets: list[PublicSet]) -> str:
    notes = [DIFFERENT.get(name, "")]
    hand = sets[0].by_hand
    notes.append(f"by hand from <{sets[0].homepage.partition(' and ')[0]}>: {hand}" if hand else "")
    return "; ".join(note for note in notes if note)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
