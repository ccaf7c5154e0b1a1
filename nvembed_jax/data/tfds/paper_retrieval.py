"""The retrieval and NLI sets of NV-Embed's training mix (paper, section 5), as far as public."""

from __future__ import annotations

from typing import Any

from nvembed_jax.data.tfds import raw_pairs, raw_retrieval
from nvembed_jax.data.tfds.registry import PublicSet, Splits
from nvembed_jax.text.instructions import MTEB_INSTRUCTIONS

_BEIR = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
_HUB = "https://huggingface.co/datasets"
_MIRACL_LANGUAGES = (
    "ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "th", "zh",
)  # fmt: skip
_TYDI_LANGUAGES = (
    "arabic", "bengali", "english", "finnish", "indonesian", "japanese", "korean", "russian",
    "swahili", "telugu", "thai",
)  # fmt: skip
_SHARDED = "many sharded files: fetch the repository with the hub's own client"
_WIKIPEDIA = "Given a question, retrieve Wikipedia passages that answer the question"
_ENTAILED = "Given a premise, retrieve a hypothesis that is entailed by the premise"
_STACK_EXCHANGE = (
    "Given a question, retrieve the answer that solves it from a question and answer site"
)


def _beir_files(folder: str, splits: dict[str, str]) -> Splits:
    return {
        split: {
            "corpus": f"{folder}/corpus.jsonl",
            "queries": f"{folder}/queries.jsonl",
            "qrels": f"{folder}/qrels/{file}.tsv",
        }
        for split, file in splits.items()
    }


def _beir(
    name: str, paper: str, task: str, licence: str, splits: str, zipped: str = ""
) -> PublicSet:
    folder = zipped or name
    there = {"train": "train", "validation": "dev", "test": "test"}
    return PublicSet(
        name=name,
        kind="pairs",
        paper=paper,
        instruction=MTEB_INSTRUCTIONS[task].instruction,
        licence=licence,
        parse=raw_retrieval.beir,
        files=_beir_files(folder, {split: there[split] for split in splits.split()}),
        urls={"": f"{_BEIR}/{folder}.zip"},
    )


def _nli(name: str, paper: str, url: str, licence: str, files: dict[str, str]) -> PublicSet:
    return PublicSet(
        name=name,
        kind="pairs",
        paper=paper,
        instruction=_ENTAILED,
        licence=licence,
        parse=raw_pairs.nli_jsonl,
        files={split: {"rows": pattern} for split, pattern in files.items()},
        urls={"": url},
    )


def _miracl(language: str) -> PublicSet:
    folder = f"miracl-v1.0-{language}"
    return PublicSet(
        name=f"miracl_{language}",
        kind="pairs",
        paper="MIRACL",
        instruction=_WIKIPEDIA,
        licence="Apache-2.0; text CC BY-SA",
        parse=raw_retrieval.trec,
        files={
            split: {
                "topics": f"{folder}/topics/topics.{folder}-{file}.tsv",
                "qrels": f"{folder}/qrels/qrels.{folder}-{file}.tsv",
                "corpus": f"miracl-corpus-v1.0-{language}/docs-*.jsonl.gz",
            }
            for split, file in (("train", "train"), ("validation", "dev"))
        },
        homepage=f"{_HUB}/miracl/miracl and {_HUB}/miracl/miracl-corpus",
        by_hand=_SHARDED,
    )


def _mr_tydi(language: str) -> PublicSet:
    folder = f"mrtydi-v1.1-{language}"
    return PublicSet(
        name=f"mr_tydi_{language}",
        kind="pairs",
        paper="Mr.TyDi",
        instruction=_WIKIPEDIA,
        licence="Apache-2.0; text CC BY-SA",
        parse=raw_retrieval.trec,
        files={
            split: {
                "topics": f"{folder}/ir-format-data/topics.{file}.txt",
                "qrels": f"{folder}/ir-format-data/qrels.{file}.txt",
                "corpus": f"{folder}/corpus.jsonl.gz",
            }
            for split, file in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
        urls={
            **{
                f"{folder}/ir-format-data/{kind}.{file}.txt": (
                    f"{_HUB}/castorini/mr-tydi/resolve/main/{folder}/ir-format-data/{kind}.{file}.txt"
                )
                for kind in ("topics", "qrels")
                for file in ("train", "dev", "test")
            },
            f"{folder}/corpus.jsonl.gz": (
                f"{_HUB}/castorini/mr-tydi-corpus/resolve/main/{folder}/corpus.jsonl.gz"
            ),
        },
    )


def _squad() -> PublicSet:
    base = "https://rajpurkar.github.io/SQuAD-explorer/dataset"
    files = {"train": "train-v1.1.json", "validation": "dev-v1.1.json"}
    return PublicSet(
        name="squad",
        kind="pairs",
        paper="SQuAD",
        instruction=_WIKIPEDIA,
        licence="CC BY-SA 4.0",
        parse=raw_retrieval.squad,
        files={split: {"rows": file} for split, file in files.items()},
        urls={file: f"{base}/{file}" for file in files.values()},
    )


def _ms_marco() -> PublicSet:
    splits: dict[str, Any] = {"train": "train", "validation": "dev.small"}
    return PublicSet(
        name="msmarco",
        kind="pairs",
        paper="MSMARCO",
        instruction=MTEB_INSTRUCTIONS["MSMARCO"].instruction,
        licence="non-commercial research",
        parse=raw_retrieval.trec,
        files={
            split: {
                "topics": f"queries.{file}.tsv",
                "qrels": f"qrels.{file}.tsv",
                "corpus": "collection.tsv",
            }
            for split, file in splits.items()
        },
        urls={
            "": "https://msmarco.z22.web.core.windows.net/msmarcoranking/collectionandqueries.tar.gz"
        },
    )


RETRIEVAL_SETS = (
    _ms_marco(),
    _beir("hotpotqa", "HotpotQA", "HotpotQA", "CC BY-SA 4.0", "train validation test"),
    _beir("nq", "NQ", "NQ", "CC BY-SA 3.0", "train", zipped="nq-train"),
    PublicSet(
        name="paq",
        kind="pairs",
        paper="PAQ",
        instruction=_WIKIPEDIA,
        licence="CC BY-SA 3.0",
        parse=raw_retrieval.paq,
        options={"limit": 1_000_000},
        files={"train": {"questions": "PAQ.metadata.jsonl.gz", "passages": "psgs_w100.tsv.gz"}},
        urls={
            name: f"https://dl.fbaipublicfiles.com/paq/v1/{name}"
            for name in ("PAQ.metadata.jsonl.gz", "psgs_w100.tsv.gz")
        },
    ),
    PublicSet(
        name="stackexchange",
        kind="pairs",
        paper="StackExchange",
        instruction=_STACK_EXCHANGE,
        licence="CC BY-SA 4.0",
        parse=raw_retrieval.stack_posts,
        files={"train": {"rows": "*/Posts.xml"}},
        homepage="https://archive.org/details/stackexchange",
        by_hand="a 7z archive a site: unpack each into a folder of the site's name",
    ),
    _nli(
        "snli",
        "NLI",
        "https://nlp.stanford.edu/projects/snli/snli_1.0.zip",
        "CC BY-SA 4.0",
        {
            "train": "snli_1.0/snli_1.0_train.jsonl",
            "validation": "snli_1.0/snli_1.0_dev.jsonl",
            "test": "snli_1.0/snli_1.0_test.jsonl",
        },
    ),
    _nli(
        "mnli",
        "NLI",
        "https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip",
        "OANC, CC BY 3.0, CC BY-SA 3.0 by genre",
        {
            "train": "multinli_1.0/multinli_1.0_train.jsonl",
            "validation": "multinli_1.0/multinli_1.0_dev_*matched.jsonl",
        },
    ),
    _squad(),
    PublicSet(
        name="bioasq",
        kind="pairs",
        paper="BioASQ",
        instruction="Given a biomedical question, retrieve passages that answer it",
        licence="CC BY 2.5 (after registration)",
        parse=raw_retrieval.bioasq,
        files={"train": {"rows": "training*b.json"}},
        homepage="http://participants-area.bioasq.org/datasets/",
        by_hand="needs a registration",
    ),
    _beir("fiqa", "FiQA", "FiQA2018", "unknown", "train validation test"),
    _beir("fever_beir", "FEVER", "FEVER", "CC BY-SA 3.0", "train validation test", zipped="fever"),
    PublicSet(
        name="hover",
        kind="pairs",
        paper="HoVer",
        instruction="Given a claim, retrieve documents that support the claim",
        licence="CC BY-SA 4.0",
        parse=raw_retrieval.hover,
        files={
            split: {
                "claims": f"hover_{file}_release_v1.1.json",
                "corpus": "hotpotqa/corpus.jsonl",
            }
            for split, file in (("train", "train"), ("validation", "dev"))
        },
        urls={
            **{
                f"hover_{file}_release_v1.1.json": (
                    "https://raw.githubusercontent.com/hover-nlp/hover/main/data/hover/"
                    f"hover_{file}_release_v1.1.json"
                )
                for file in ("train", "dev")
            },
            "": f"{_BEIR}/hotpotqa.zip",
        },
    ),
    _beir("scifact", "SciFact", "SciFact", "CC BY-NC 2.0", "train test"),
    _beir("nfcorpus", "NFCorpus", "NFCorpus", "unknown", "train validation test"),
    *(_miracl(language) for language in _MIRACL_LANGUAGES),
    *(_mr_tydi(language) for language in _TYDI_LANGUAGES),
)
