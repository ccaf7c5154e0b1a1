"""Public sets beyond the paper's, small enough for experiments on one machine.

Their origins are repositories at a fixed commit. Sets without a parser are read only from folders
in the task layout: turning their sources (manuals, books, lexica) into pairs is a work of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nvembed_jax.data.tfds import raw_labels, raw_pairs, raw_retrieval
from nvembed_jax.data.tfds.registry import PublicSet, Splits

_LINES = {"header": False, "quoted": False, "delimiter": "\t"}
_PARAPHRASE = "Retrieve text that is a paraphrase of the given text"
_ENTAILED = "Given a premise, retrieve a hypothesis that is entailed by the premise"
_SENTENCE = "Given a question, retrieve Wikipedia sentences that answer it"
_SUBJECT_TASK = "Identify the topic or theme of the given news articles"


def _rows(**patterns: str) -> Splits:
    return {split: {"rows": pattern} for split, pattern in patterns.items()}


def _repository(
    name: str,
    repository: str,
    commit: str,
    kind: str,
    instruction: str,
    licence: str,
    parse: Callable[..., Any],
    files: Splits,
    *,
    archive: bool = False,
    **more: Any,
) -> PublicSet:
    """A set of a GitHub repository: single files, or many from its archive."""
    if archive or any("*" in pattern for roles in files.values() for pattern in roles.values()):
        urls = {"": f"https://github.com/{repository}/archive/{commit}.zip"}
    else:
        base = f"https://raw.githubusercontent.com/{repository}/{commit}"
        paths = {pattern for roles in files.values() for pattern in roles.values()}
        urls = {path: f"{base}/{path}" for path in sorted(paths)}
    return PublicSet(
        name=name,
        kind=kind,
        instruction=instruction,
        licence=licence,
        parse=parse,
        files=files,
        urls=urls,
        homepage=f"https://github.com/{repository}",
        **more,
    )


def _folder_only(name: str, repository: str, instruction: str, licence: str) -> PublicSet:
    return PublicSet(
        name=name,
        kind="pairs",
        instruction=instruction,
        licence=licence,
        homepage=f"https://github.com/{repository}",
        by_hand="no parser for its sources: a folder in the task layout only",
    )


def _tweets(name: str, folder: str, instruction: str) -> PublicSet:
    base = f"datasets/{folder}"
    return _repository(
        name, "cardiffnlp/tweeteval", "4fbd22cd78421f05b1ecdb4fc5725bc7a7bd8f66",
        "classification", instruction, "research use", raw_labels.labelled_lines,
        {
            split: {
                "texts": f"{base}/{file}_text.txt",
                "labels": f"{base}/{file}_labels.txt",
                "mapping": f"{base}/mapping.txt",
            }
            for split, file in (("train", "train"), ("validation", "val"), ("test", "test"))
        },
    )  # fmt: skip


def _newsgroups(name: str, kind: str, part: str, instruction: str) -> PublicSet:
    return _repository(
        name, "gokriznastic/20-newsgroups_text-classification",
        "06ac400595f51bc649737594ea5e39869292799f", kind, instruction, "unknown",
        raw_labels.class_folders,
        _rows(**{"test" if part == "subject" else "train": "20_newsgroups/*/*"}),
        options={"part": part},
    )  # fmt: skip


def _clustering(name: str, file: str, columns: Mapping[str, Any], task: str) -> PublicSet:
    return _repository(
        name, "rashadulrakib/short-text-clustering-enhancement",
        "f363b66e6fd51f9dd1db679d2a9ce55538ab9868", "clustering", task, "unknown",
        raw_labels.labelled_table, _rows(test=f"data/{file}"), options={**columns, **_LINES},
    )  # fmt: skip


_RMIB = ("chenxingphh/rmib", "80bf2b2ac7b63a51584adc84cdb17da47ba296e4")
_NLI = ("felipessalvatore/NLI_datasets", "9551b739a830fafb2ec4b98d49a9ecd4bf3dcbd0")
_STS = ("brmson/dataset-sts", "e1d3375f5b3bc24f21aa4e46f96eb379e9fc1081")

OTHER_SETS = (
    _repository(
        "ag_news", "mhjabreel/CharCnn_Keras", "555590db4219b1243abb1918effd6a7425a2d75f",
        "classification", "Classify the topic of the given news article",
        "non-commercial research", raw_labels.labelled_table,
        _rows(train="data/ag_news_csv/train.csv", test="data/ag_news_csv/test.csv"),
        options={"text": (1, 2), "label": 0, "header": False,
                 "names": {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}},
    ),
    _repository(
        "arxiv_title_abstract", "staeiou/arxiv_archive",
        "f043eb1d71da6ed2fb9eac63ab8707359ff606ea", "pairs",
        "Given the title of a scientific paper, retrieve its abstract", "CC0 1.0",
        raw_pairs.paired_table,
        _rows(train="processed_data/20200101/per_category/*.tsv.xz"),
        options={"query": "title", "positive": "abstract", "delimiter": "\t"},
    ),
    _repository(
        "asset_simplification", "facebookresearch/asset",
        "9d659040d0d8942dbc4cd65cf357563b43fd9ab4", "pairs",
        "Given a sentence, retrieve a simpler sentence of the same meaning", "CC BY-NC 4.0",
        raw_pairs.paired_lines,
        {"train": {"queries": "dataset/asset.valid.orig",
                   "positives": "dataset/asset.valid.simp.*"},
         "test": {"queries": "dataset/asset.test.orig",
                  "positives": "dataset/asset.test.simp.*"}},
        options={"group": True},
    ),
    _repository(
        "cacm", "kavinsan/Information-Retrieval-Project",
        "feda4806b8d19af85753c580640d40e572f99339", "pairs",
        "Given a description of an information need in computing, retrieve abstracts that meet it",
        "unknown", raw_retrieval.smart,
        {"test": {"corpus": "cacm.all", "queries": "query.text", "qrels": "qrels.text"}},
    ),
    _repository(
        "cisi", "Shakiba-Alipour/Information-Retrieval-on-CISI",
        "7a23c34602e8949d795bb1835004546e00d1d1ba", "pairs",
        "Given a description of an information need in library science, retrieve abstracts that "
        "meet it", "unknown", raw_retrieval.smart,
        {"test": {"corpus": "CISI.ALL", "queries": "CISI.QRY", "qrels": "CISI.REL"}},
    ),
    _repository(
        "datatalks_faq", "DataTalksClub/faq", "7757d2a0e71dc376d0fc93f419162c306e7582b3", "pairs",
        "Given a question about a course, retrieve its answer", "unknown",
        raw_pairs.front_matter_questions, _rows(train="_questions/**/*.md"),
    ),
    _repository(
        "disfl_qa", "google-research-datasets/Disfl-QA",
        "1f0c16171c77b3d3408be92c485f11b8998a9189", "pairs",
        "Given a disfluent question, retrieve the fluent question", "CC BY 4.0",
        raw_retrieval.json_pairs,
        _rows(train="train.json", validation="dev.json", test="test.json"),
        options={"query": "disfluent", "positive": "original"},
    ),
    _repository(
        "fever", "athnlp/athnlp-labs", "136f2d3dce4b9159cf35c9dc2bfd7b7670ce6f5d", "pairs",
        "Given a claim, retrieve sentences that support or refute the claim", "CC BY-SA 3.0",
        raw_retrieval.claims, _rows(train="data/fever/*.jsonl"),
    ),
    _repository(
        "flickr8k_captions", "prakhar-dhakar/Image-Captioning",
        "5ab3142167da9315c4287173ed24a643a0425ab8", "pairs",
        "Given a caption, retrieve another caption of the same image", "non-commercial research",
        raw_pairs.captions, _rows(train="Flickr8k.token.txt"),
    ),
    _repository(
        "hwu64", "jianguoz/Few-Shot-Intent-Detection",
        "fa9553312b1dba54b1be0aae2d30b13171f898e5", "classification",
        "Given a user utterance to a home assistant, find the user intent", "CC BY 4.0",
        raw_labels.labelled_lines,
        {split: {"texts": f"Datasets/HWU64/{folder}/seq.in",
                 "labels": f"Datasets/HWU64/{folder}/label"}
         for split, folder in (("train", "train"), ("validation", "valid"), ("test", "test"))},
    ),
    _repository(
        "medical_rqe", "abachaa/MEDIQA2019", "ae5d3826d6c841923b9db831159fef0f1b893593", "pairs",
        "Given a consumer health question, retrieve the question it implies", "unknown",
        raw_pairs.entailed_questions,
        _rows(train="MEDIQA_Task2_RQE/MEDIQA2019-Task2-RQE-TrainingSet-AMIA2016.xml"),
    ),
    _repository(
        "medquad", "abachaa/MedQuAD", "577bd37b96c02d1833b2c9eed2de9f96964e96cb", "pairs",
        "Given a medical question, retrieve its answer", "CC BY 4.0",
        raw_pairs.question_answers, _rows(train="*_QA/*.xml"),
    ),
    _repository(
        "mnli_triples", *_NLI, "pairs", _ENTAILED, "OANC, CC BY 3.0, CC BY-SA 3.0 by genre",
        raw_pairs.nli_table, _rows(train="nli_datasets/mnli/dev.csv"),
        options={"positive": "entailment", "negative": "contradiction"},
    ),
    _repository(
        "mrpc", *_STS, "pair_classification", _PARAPHRASE, "research use",
        raw_pairs.labelled_pairs_table,
        _rows(train="data/para/msr/msr-para-train.tsv",
              validation="data/para/msr/msr-para-val.tsv",
              test="data/para/msr/msr-para-test.tsv"),
        options={"label": "Quality", "texts": ("#1 String", "#2 String"), "delimiter": "\t",
                 "quoted": False},
    ),
    _newsgroups("newsgroups20", "classification", "body",
                "Identify the newsgroup of the given post"),
    _newsgroups("newsgroups20_subjects", "clustering", "subject", _SUBJECT_TASK),
    _repository(
        "nl2bash", "TellinaTool/nl2bash", "466c5fe873ab08c7cc0112ea1521cc6ad9c20992", "pairs",
        "Given a task, retrieve the shell command that does it", "GPL-3.0",
        raw_pairs.paired_lines,
        {"train": {"queries": "data/bash/all.nl", "positives": "data/bash/all.cm"}},
    ),
    _repository(
        "open_trivia", "uberspot/OpenTriviaQA", "dd31530bfbb19f9505b160b89c9df4b1127e3c70",
        "pairs", "Given a trivia question, retrieve its answer", "CC BY-SA 4.0",
        raw_pairs.trivia, _rows(train="categories/*"),
    ),
    _repository(
        "policy_qa", "wasiahmad/PolicyQA", "775538bc6d932e9d0dd16975d4373659cf8964fe", "pairs",
        "Given a question about a website, retrieve passages of its privacy policy that answer it",
        "MIT", raw_retrieval.squad,
        _rows(train="data/train.json", validation="data/dev.json", test="data/test.json"),
        options={"with_title": True},
    ),
    _repository(
        "qnli", *_NLI, "pairs", _SENTENCE, "CC BY-SA 4.0", raw_pairs.nli_table,
        _rows(train="nli_datasets/qnli/dev.csv"),
        options={"positive": "entailment", "negative": "not_entailment"},
    ),
    _repository(
        "quora", *_RMIB, "pair_classification",
        "Given a question, retrieve questions that are duplicates of it",
        "non-commercial research", raw_pairs.labelled_pairs_table,
        _rows(train="data/quora/train.txt", validation="data/quora/dev.txt",
              test="data/quora/test.txt"),
        options={"label": 2, "texts": (0, 1), **_LINES},
    ),
    _repository(
        "scitldr", "allenai/scitldr", "5ccad9c00a60ad75c9e04abf7f27d0f53f983b20", "pairs",
        "Given a one-sentence summary, retrieve the abstract of the paper", "Apache-2.0",
        raw_pairs.summaries,
        _rows(train="SciTLDR-Data/SciTLDR-A/train.jsonl",
              validation="SciTLDR-Data/SciTLDR-A/dev.jsonl",
              test="SciTLDR-Data/SciTLDR-A/test.jsonl"),
    ),
    _clustering("search_snippets", "search_snippets/search_snippets_true_text",
                {"text": (1,), "label": 0}, "Identify the topic of the given web search snippet"),
    _clustering("stackoverflow_titles", "stackoverflow/stackoverflow_true_text",
                {"text": (1,), "label": 0}, "Identify the topic of the given question title"),
    _repository(
        "snips", "sonos/nlu-benchmark", "b86ac7f1577868c42158d0dec77db50956046696",
        "classification", "Given a voice command, find its intent", "CC0 1.0",
        raw_labels.spoken_intents,
        _rows(train="2017-06-custom-intent-engines/*/train_*_full.json",
              test="2017-06-custom-intent-engines/*/validate_*.json"),
    ),
    _repository(
        "snli_triples", *_RMIB, "pairs", _ENTAILED, "CC BY-SA 4.0", raw_pairs.nli_table,
        _rows(train="data/snli/train.txt", validation="data/snli/dev.txt",
              test="data/snli/test.txt"),
        options={"positive": "0", "negative": "2", "columns": (0, 1, 2), **_LINES},
    ),
    _repository(
        "squad_paragraphs", "bigai-nlco/RouterLens", "1c18cc756be028a7e55a51fd7b51a2b211baa0c9",
        "pairs", "Given a question, retrieve Wikipedia paragraphs that answer it",
        "CC BY-SA 4.0", raw_retrieval.json_pairs, _rows(train="data/squad/dev.json"),
        options={"query": "question", "positive": "context"},
    ),
    _repository(
        "squad_sentences", "xinyadu/nqg", "8211129a3e97d29f3e4563e35f65e4a892f70ef0", "pairs",
        _SENTENCE, "CC BY-SA 4.0", raw_pairs.paired_lines,
        {split: {"queries": f"data/processed/tgt-{file}.txt",
                 "positives": f"data/processed/src-{file}.txt"}
         for split, file in (("train", "train"), ("validation", "dev"), ("test", "test"))},
    ),
    _repository(
        "sst2", "clairett/pytorch-sentiment-classification",
        "457ffd83de90a9d6d472d8ffc31bbffe40a8b236", "classification",
        "Classify the sentiment expressed in the given sentence of a film review", "unknown",
        raw_labels.labelled_table,
        _rows(train="data/SST2/train.tsv", validation="data/SST2/dev.tsv",
              test="data/SST2/test.tsv"),
        options={"text": (0,), "label": 1, **_LINES},
        label_texts={"0": "negative", "1": "positive"},
    ),
    _repository(
        "sts12_15", *_STS, "sts", "Retrieve semantically similar text",
        "by source, mostly research use", raw_pairs.scored_table,
        _rows(test="data/sts/semeval-sts/201[2-5]/*.tsv"),
        options={"score": 0, "texts": (1, 2), **_LINES},
    ),
    _repository(
        "stsb_train_dev", "aivilmo/textual-similarity",
        "3fe0911a2e267b1cd7b2602c095c402ebadf4271", "sts", "Retrieve semantically similar text",
        "CC BY-SA 4.0 and by source", raw_pairs.scored_table,
        _rows(train="stsbenchmark/sts-train.csv", validation="stsbenchmark/sts-dev.csv"),
        options={"score": 4, "texts": (5, 6), **_LINES},
    ),
    _repository(
        "til", "jbranchaud/til", "453e9edbdf2be4165b65cbcce7342ac7bb9c4859", "pairs",
        "Given the title of a note on programming, retrieve the note", "MIT",
        raw_pairs.titled_markdown, _rows(train="*/*.md"),
    ),
    _repository(
        "tldr", "tldr-pages/tldr", "08e345f42639f67d99282813247ac670dc6e87cb", "pairs",
        "Given a task, retrieve the shell command that does it", "CC BY 4.0",
        raw_pairs.command_pages, _rows(train="pages/*/*.md"),
    ),
    PublicSet(
        name="trec_qc",
        kind="classification",
        instruction="Given a question, find the type of its answer",
        licence="unknown",
        parse=raw_labels.question_types,
        files=_rows(train="train_5500.label", test="TREC_10.label"),
        urls={
            name: f"https://cogcomp.seas.upenn.edu/Data/QA/QC/{name}"
            for name in ("train_5500.label", "TREC_10.label")
        },
    ),
    _tweets("tweet_irony", "irony", "Find whether the given tweet is ironic"),
    _tweets("tweet_sentiment", "sentiment",
            "Classify the sentiment of the given tweet as positive, negative or neutral"),
    _repository(
        "wikiqa", *_RMIB, "pairs", _SENTENCE, "research use", raw_pairs.ranked_table,
        _rows(train="data/wikiqa/train.txt", validation="data/wikiqa/dev.txt",
              test="data/wikiqa/test.txt"),
        options=_LINES,
    ),
    _folder_only("arxiv_retrieval_dev", "staeiou/arxiv_archive",
                 "Given the title of a scientific paper, retrieve its abstract", "CC0 1.0"),
    _folder_only("msdocs_sections", "MicrosoftDocs/cpp-docs",
                 "Given a heading of technical documentation, retrieve its section", "CC BY 4.0"),
    _folder_only("openstax", "openstax/osbooks-introduction-business",
                 "Given a term or heading of a textbook, retrieve its explanation", "CC BY 4.0"),
    _folder_only("php_functions", "php/doc-en",
                 "Given a purpose, retrieve the function that serves it", "CC BY 3.0"),
    _folder_only("powershell_cmdlets", "MicrosoftDocs/azure-docs-powershell",
                 "Given a task, retrieve the command that does it", "CC BY 4.0"),
    _folder_only("python_peps", "python/peps",
                 "Given a heading of a technical proposal, retrieve its section", "CC0 1.0"),
    _folder_only("squad_sentence_retrieval", "xinyadu/nqg", _SENTENCE, "CC BY-SA 4.0"),
    _folder_only("wordnet_definitions", "globalwordnet/english-wordnet",
                 "Given a word, retrieve its definition", "CC BY 4.0"),
)  # fmt: skip
