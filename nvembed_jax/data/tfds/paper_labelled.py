"""The classification, clustering and STS sets of NV-Embed's training mix, as far as public."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvembed_jax.data.tfds import raw_labels, raw_pairs
from nvembed_jax.data.tfds.registry import PublicSet, Splits
from nvembed_jax.text.instructions import MTEB_INSTRUCTIONS

_KAGGLE = "needs a Kaggle account"
_COUNTERFACTUAL = (
    "https://raw.githubusercontent.com/amazon-research/"
    "amazon-multilingual-counterfactual-dataset/main/data"
)
_BANKING = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data"
_MASSIVE = "https://amazon-massive-nlu-dataset.s3.amazonaws.com/amazon-massive-dataset-1.0.tar.gz"


def _rows(**patterns: str) -> Splits:
    return {split: {"rows": pattern} for split, pattern in patterns.items()}


def _urls(base: str, files: Splits) -> dict[str, str]:
    return {roles["rows"]: f"{base}/{roles['rows']}" for roles in files.values()}


def _task(
    name: str, paper: str, task: str, licence: str, parse: Callable[..., Any], **more: Any
) -> PublicSet:
    return PublicSet(
        name=name,
        kind=MTEB_INSTRUCTIONS[task].type,
        paper=paper,
        instruction=MTEB_INSTRUCTIONS[task].instruction,
        licence=licence,
        parse=parse,
        **more,
    )


def _massive(label: str) -> PublicSet:
    partitions = {"train": "train", "validation": "dev", "test": "test"}
    return _task(
        f"massive_{label}",
        "MASSIVE scenario/intent",
        f"Massive{label.capitalize()}Classification",
        "CC BY 4.0",
        raw_labels.labelled_jsonl,
        files=_rows(**dict.fromkeys(partitions, "1.0/data/en-US.jsonl")),
        options={"text": ("utt",), "label": label},
        split_options={
            split: {"where_equal": {"partition": partition}}
            for split, partition in partitions.items()
        },
        urls={"": _MASSIVE},
    )


def _mtop(label: str, column: int) -> PublicSet:
    return _task(
        f"mtop_{label}",
        "MTOP domain/intent",
        f"MTOP{label.capitalize()}Classification",
        "CC BY-SA 4.0",
        raw_labels.labelled_table,
        files=_rows(
            train="mtop/en/train.txt", validation="mtop/en/eval.txt", test="mtop/en/test.txt"
        ),
        options={"text": (3,), "label": column, "delimiter": "\t", "header": False,
                 "quoted": False},
        homepage="https://fb.me/mtop_dataset",
        by_hand="the address leads to an archive under changing names",
    )  # fmt: skip


def _arxiv(form: str, text: tuple[str, ...]) -> PublicSet:
    return _task(
        f"arxiv_{form}",
        "arXiv raw",
        f"ArxivClustering{form.upper()}",
        "CC0 1.0",
        raw_labels.labelled_jsonl,
        files=_rows(train="arxiv-metadata-oai-snapshot.json"),
        options={"text": text, "label": "categories", "first_word": True},
        homepage="https://www.kaggle.com/datasets/Cornell-University/arxiv",
        by_hand=_KAGGLE,
    )


def _preprints(server: str, form: str, text: tuple[str, ...]) -> PublicSet:
    return _task(
        f"{server}_{form}",
        f"{server.removesuffix('rxiv')}Rxiv raw",
        f"{server.capitalize()}Clustering{form.upper()}",
        "by paper",
        raw_labels.preprints,
        files=_rows(train="*.json"),
        options={"text": text},
        homepage=f"https://api.biorxiv.org/details/{server}/2015-01-01/2023-12-31/0",
        by_hand="the API gives 100 papers a page: save each page as a .json file",
    )


def _reddit(name: str, task: str, text: tuple[str, ...]) -> PublicSet:
    return _task(
        name,
        "Reddit",
        task,
        "unknown",
        raw_labels.labelled_jsonl,
        files=_rows(train="reddit_title_text_*.jsonl.gz"),
        options={"text": text, "label": "subreddit"},
        homepage="https://huggingface.co/datasets/sentence-transformers/reddit-title-body",
        by_hand="a file a year, 50 GB: choose the years",
    )


def _stack_exchange(name: str, task: str, body: bool) -> PublicSet:
    return _task(
        name,
        "StackExchange S2S/P2P",
        task,
        "CC BY-SA 4.0",
        raw_labels.stack_sites,
        files=_rows(train="*/Posts.xml"),
        options={"body": body},
        homepage="https://archive.org/details/stackexchange",
        by_hand="a 7z archive a site: unpack each into a folder of the site's name",
    )


def _sts(name: str, paper: str, task: str, parse: Callable[..., Any], **more: Any) -> PublicSet:
    return _task(name, paper, task, "by source, mostly research use", parse, **more)


_TITLE, _BOTH = ("title",), ("title", "abstract")
_AMAZON_FILES = {
    split: f"dataset_en_{file}.json"
    for split, file in (("train", "train"), ("validation", "dev"), ("test", "test"))
}
_EN_FILES = _rows(train="EN_train.tsv", validation="EN_valid.tsv", test="EN_test.tsv")
_STSB_FILES = _rows(
    train="stsbenchmark/sts-train.csv",
    validation="stsbenchmark/sts-dev.csv",
    test="stsbenchmark/sts-test.csv",
)

LABELLED_SETS = (
    _task(
        "amazon_reviews", "AmazonReviews", "AmazonReviewsClassification", "research use",
        raw_labels.labelled_jsonl,
        files=_rows(**_AMAZON_FILES),
        options={"text": ("review_title", "review_body"), "label": "stars"},
        homepage="https://registry.opendata.aws/amazon-reviews-ml/",
        by_hand="no longer offered by its publisher; for those who have a copy",
    ),
    _task(
        "amazon_counterfactual", "AmazonCounterfactual", "AmazonCounterfactualClassification",
        "CC BY-SA 4.0", raw_labels.labelled_table,
        files=_EN_FILES,
        options={"text": ("sentence",), "label": "is_counterfactual", "delimiter": "\t",
                 "quoted": False},
        urls=_urls(_COUNTERFACTUAL, _EN_FILES),
        label_texts={"0": "not counterfactual", "1": "counterfactual"},
    ),
    _task(
        "banking77", "Banking77", "Banking77Classification", "CC BY 4.0",
        raw_labels.labelled_table,
        files=_rows(train="train.csv", test="test.csv"),
        options={"text": ("text",), "label": "category"},
        urls={"train.csv": f"{_BANKING}/train.csv", "test.csv": f"{_BANKING}/test.csv"},
    ),
    _task(
        "emotion", "Emotion", "EmotionClassification", "educational and research use",
        raw_labels.labelled_table,
        files=_rows(train="train.txt", validation="val.txt", test="test.txt"),
        options={"text": (0,), "label": 1, "delimiter": ";", "header": False, "quoted": False},
        homepage="https://github.com/dair-ai/emotion_dataset",
        by_hand="its published addresses change",
    ),
    _task(
        "imdb", "IMDB", "ImdbClassification", "non-commercial research",
        raw_labels.class_folders,
        files=_rows(train="aclImdb/train/[pn]*/*.txt", test="aclImdb/test/[pn]*/*.txt"),
        urls={"": "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"},
        label_texts={"pos": "positive", "neg": "negative"},
    ),
    _mtop("domain", 4),
    _mtop("intent", 1),
    _task(
        "toxic_conversations", "ToxicConversations", "ToxicConversationsClassification", "CC0",
        raw_labels.labelled_table,
        files=_rows(train="train.csv"),
        options={"text": ("comment_text",), "label": "target", "threshold": 0.5},
        homepage="https://www.kaggle.com/c/jigsaw-unintended-bias-in-toxicity-classification",
        by_hand=_KAGGLE,
        label_texts={"0": "not toxic", "1": "toxic"},
    ),
    _task(
        "tweet_sentiment_extraction", "TweetSentimentExtraction",
        "TweetSentimentExtractionClassification", "CC BY 4.0",
        raw_labels.labelled_table,
        files=_rows(train="train.csv", test="test.csv"),
        options={"text": ("text",), "label": "sentiment"},
        homepage="https://www.kaggle.com/c/tweet-sentiment-extraction",
        by_hand=_KAGGLE,
    ),
    _task(
        "amazon_polarity", "AmazonPolarity", "AmazonPolarityClassification", "Apache-2.0",
        raw_labels.labelled_table,
        files=_rows(
            train="amazon_review_polarity_csv/train.csv",
            test="amazon_review_polarity_csv/test.csv",
        ),
        options={"text": (1, 2), "label": 0, "header": False,
                 "names": {"1": "negative", "2": "positive"}},
        urls={"": "https://s3.amazonaws.com/fast-ai-nlp/amazon_review_polarity_csv.tgz"},
    ),
    _massive("scenario"),
    _massive("intent"),
    _arxiv("s2s", _TITLE),
    _arxiv("p2p", _BOTH),
    _preprints("biorxiv", "s2s", _TITLE),
    _preprints("biorxiv", "p2p", _BOTH),
    _preprints("medrxiv", "s2s", _TITLE),
    _preprints("medrxiv", "p2p", _BOTH),
    _task(
        "twenty_newsgroups", "TwentyNewsgroups", "TwentyNewsgroupsClustering", "unknown",
        raw_labels.class_folders,
        files=_rows(train="20news-bydate-train/*/*", test="20news-bydate-test/*/*"),
        options={"part": "subject"},
        urls={"": "http://qwone.com/~jason/20Newsgroups/20news-bydate.tar.gz"},
    ),
    _reddit("reddit_s2s", "RedditClustering", ("title",)),
    _reddit("reddit_p2p", "RedditClusteringP2P", ("title", "body")),
    _stack_exchange("stackexchange_s2s", "StackExchangeClustering", body=False),
    _stack_exchange("stackexchange_p2p", "StackExchangeClusteringP2P", body=True),
    _sts(
        "sts12", "STS12", "STS12", raw_pairs.scored_lines,
        files=_rows(train="train/STS.input.*.txt"),
        homepage="https://www.cs.york.ac.uk/semeval-2012/task6/",
        by_hand="its published addresses change; unpack train.tgz",
    ),
    _sts(
        "stsb", "STS-B", "STSBenchmark", raw_pairs.scored_table,
        files=_STSB_FILES,
        options={"score": 4, "texts": (5, 6), "delimiter": "\t", "header": False,
                 "quoted": False},
        urls={"": "http://ixa2.si.ehu.eus/stswiki/images/4/48/Stsbenchmark.tar.gz"},
    ),
)  # fmt: skip
