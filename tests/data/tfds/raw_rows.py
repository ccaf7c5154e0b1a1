"""Three or more rows of every public set in its origin's raw format, and what they should become.

`RAW` maps a set's name to its files (path -> content) and the rows of its first split: pairs as
(query, positives, negatives), others as their fields in order. All texts are made up.
"""

from __future__ import annotations

import gzip
import json
import lzma
from typing import Any

Content = str | bytes
Rows = list[tuple[Any, ...]]
RAW: dict[str, tuple[dict[str, Content], Rows]] = {}


def lines(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def tabs(*rows: tuple[Any, ...]) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


# Retrieval: a corpus, queries and judgements.
JUDGED: Rows = [
    ("what is a", ["Title A text a"], ["text b"]),
    ("what is b", ["text b", "Title C text c"], []),
    ("what is d", ["Title D text d"], []),
]


def beir(folder: str, *splits: str) -> tuple[dict[str, Content], Rows]:
    files: dict[str, Content] = {
        f"{folder}/corpus.jsonl": lines(
            {"_id": "a", "title": "Title A", "text": "text a", "metadata": {}},
            {"_id": "b", "title": "", "text": "text b", "metadata": {}},
            {"_id": "c", "title": "Title C", "text": "text c", "metadata": {}},
            {"_id": "d", "title": "Title D", "text": "text d", "metadata": {}},
            {"_id": "e", "title": "", "text": "", "metadata": {}},
        ),
        f"{folder}/queries.jsonl": lines(
            {"_id": "1", "text": "what is a", "metadata": {}},
            {"_id": "2", "text": "what is b", "metadata": {}},
            {"_id": "3", "text": "what is d", "metadata": {}},
            {"_id": "4", "text": "not judged", "metadata": {}},
        ),
    }
    judgements = [("1", "a", 1), ("1", "b", 0), ("2", "b", 1), ("2", "c", 2), ("3", "d", 1)]
    for split in splits:
        files[f"{folder}/qrels/{split}.tsv"] = tabs(
            ("query-id", "corpus-id", "score"), *judgements, ("4", "e", 1)
        )
    return files, JUDGED


for name, folder, splits in (
    ("hotpotqa", "hotpotqa", ("train", "dev", "test")),
    ("nq", "nq-train", ("train",)),
    ("fiqa", "fiqa", ("train", "dev", "test")),
    ("fever_beir", "fever", ("train", "dev", "test")),
    ("scifact", "scifact", ("train", "test")),
    ("nfcorpus", "nfcorpus", ("train", "dev", "test")),
):
    RAW[name] = beir(folder, *splits)


def trec(topics: str, qrels: str, corpus: str, as_json: bool) -> tuple[dict[str, Content], Rows]:
    passages = [("a#0", "Title A", "text a"), ("b#1", "", "text b"), ("c#0", "Title C", "text c"),
                ("d#0", "Title D", "text d")]  # fmt: skip
    if as_json:
        rows = [{"docid": id_, "title": title, "text": text} for id_, title, text in passages]
        content: Content = gzip.compress(lines(*rows).encode())
    else:
        content = tabs(*((id_, f"{title} {text}".strip()) for id_, title, text in passages))
    judged = [(1, "a#0", 1), (1, "b#1", 0), (2, "b#1", 1), (2, "c#0", 1), (3, "d#0", 1)]
    files: dict[str, Content] = {
        topics: tabs((1, "what is a"), (2, "what is b"), (3, "what is d"), (4, "no passage")),
        qrels: "".join(f"{query} Q0 {passage} {score}\n" for query, passage, score in judged),
        corpus: content,
    }
    return files, JUDGED


RAW["msmarco"] = trec("queries.train.tsv", "qrels.train.tsv", "collection.tsv", as_json=False)
for language in "ar bn en es fa fi fr hi id ja ko ru sw te th zh".split():  # noqa: SIM905
    folder = f"miracl-v1.0-{language}"
    RAW[f"miracl_{language}"] = trec(
        f"{folder}/topics/topics.{folder}-train.tsv",
        f"{folder}/qrels/qrels.{folder}-train.tsv",
        f"miracl-corpus-v1.0-{language}/docs-0.jsonl.gz",
        as_json=True,
    )
for language in (
    "arabic bengali english finnish indonesian japanese korean russian swahili telugu thai".split()  # noqa: SIM905
):
    folder = f"mrtydi-v1.1-{language}"
    RAW[f"mr_tydi_{language}"] = trec(
        f"{folder}/ir-format-data/topics.train.txt",
        f"{folder}/ir-format-data/qrels.train.txt",
        f"{folder}/corpus.jsonl.gz",
        as_json=True,
    )

RAW["paq"] = (
    {
        "PAQ.metadata.jsonl.gz": gzip.compress(
            lines(
                *(
                    {"question": f"who is {name}", "subsets": ["L1"], "answer": name,
                     "passage_score": -1.5,
                     "answers": [{"passage_id": id_, "offset": 0, "text": name, "extractor": "L"}]}
                    for name, id_ in (("ann", "2"), ("bob", "1"), ("cid", "2"))
                )
            ).encode()
        ),
        "psgs_w100.tsv.gz": gzip.compress(
            b'id\ttext\ttitle\n1\t"the ""bob"" of old"\t"Bob"\n2\tann and cid\tPeople\n3\tx\tY\n'
        ),
    },
    [
        ("who is ann", ["People ann and cid"], []),
        ("who is bob", ['Bob the "bob" of old'], []),
        ("who is cid", ["People ann and cid"], []),
    ],
)  # fmt: skip
RAW["hover"] = (
    {
        "hover_train_release_v1.1.json": json.dumps(
            [
                {"uid": "u1", "claim": "claim one", "supporting_facts": [["A", 0], ["B", 2]],
                 "label": "SUPPORTED", "num_hops": 2, "hpqa_id": "h"},
                {"uid": "u2", "claim": "claim two", "supporting_facts": [["A", 0]],
                 "label": "NOT_SUPPORTED", "num_hops": 2, "hpqa_id": "h"},
                {"uid": "u3", "claim": "claim three", "supporting_facts": [["C", 0]],
                 "label": "SUPPORTED", "num_hops": 2, "hpqa_id": "h"},
                {"uid": "u4", "claim": "claim four", "supporting_facts": [["B", 1]],
                 "label": "SUPPORTED", "num_hops": 2, "hpqa_id": "h"},
            ]
        ),
        "hotpotqa/corpus.jsonl": lines(
            *({"_id": str(i), "title": t, "text": f"about {t}"} for i, t in enumerate("ABCD"))
        ),
    },
    [
        ("claim one", ["A about A", "B about B"], []),
        ("claim three", ["C about C"], []),
        ("claim four", ["B about B"], []),
    ],
)  # fmt: skip


def squad_json(title: str) -> str:
    paragraphs = [
        {"context": "context one",
         "qas": [{"id": "1", "question": "q one", "answers": [{"text": "c", "answer_start": 0}]},
                 {"id": "2", "question": "q two", "answers": []}]},
        {"context": "context two", "qas": [{"id": "3", "question": "q three", "answers": []}]},
    ]  # fmt: skip
    return json.dumps({"version": "1.1", "data": [{"title": title, "paragraphs": paragraphs}]})


RAW["squad"] = (
    {"train-v1.1.json": squad_json("T"), "dev-v1.1.json": squad_json("T")},
    [
        ("q one", ["context one"], []),
        ("q two", ["context one"], []),
        ("q three", ["context two"], []),
    ],
)
RAW["policy_qa"] = (
    {f"data/{split}.json": squad_json("a.org") for split in ("train", "dev", "test")},
    [
        ("q one (a.org)", ["context one"], []),
        ("q two (a.org)", ["context one"], []),
        ("q three (a.org)", ["context two"], []),
    ],
)
RAW["bioasq"] = (
    {
        "BioASQ-training11b/training11b.json": json.dumps(
            {
                "questions": [
                    {"id": str(i), "body": f"question {i}", "type": "summary",
                     "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/1"],
                     "snippets": [{"text": f"snippet {i}", "document": "d"}] * 2,
                     "ideal_answer": ["x"]}
                    for i in range(3)
                ]
            }
        )
    },
    [(f"question {i}", [f"snippet {i}"], []) for i in range(3)],
)  # fmt: skip


def posts(*questions: tuple[int, str, str]) -> str:
    rows = []
    for id_, title, answer in questions:
        rows.append(
            f'<row Id="{id_}" PostTypeId="1" AcceptedAnswerId="{id_ + 100}" '
            f'Title="{title}" Body="&lt;p&gt;asks {title}&lt;/p&gt;" Tags="&lt;t&gt;" />'
        )
        rows.append(f'<row Id="{id_ + 100}" PostTypeId="2" ParentId="{id_}" '
                    f'Body="&lt;p&gt;{answer} &amp;amp; more&lt;/p&gt;" />')  # fmt: skip
    rows.append('<row Id="9" PostTypeId="1" Title="open" Body="nobody knows" />')
    body = "\n  ".join(rows)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n  {body}\n</posts>\n'


SITES: dict[str, Content] = {
    "ask.org/Posts.xml": posts((1, "A", "do a"), (2, "B", "do b")),
    "beer.org/Posts.xml": posts((1, "C", "do c")),
}
RAW["stackexchange"] = (
    SITES,
    [(f"{x} asks {x}", [f"do {x.lower()} & more"], []) for x in "ABC"],
)
TITLES = [("A", "ask.org"), ("B", "ask.org"), ("open", "ask.org"), ("C", "beer.org"),
          ("open", "beer.org")]  # fmt: skip
RAW["stackexchange_s2s"] = (SITES, TITLES)
RAW["stackexchange_p2p"] = (
    SITES,
    [
        (f"{title} {'nobody knows' if title == 'open' else f'asks {title}'}", site)
        for title, site in TITLES
    ],
)


# Natural language inference.
NLI = [
    ("p one", "h one", "entailment"),
    ("p one", "h two", "contradiction"),
    ("p one", "h three", "neutral"),
    ("p two", "h four", "entailment"),
    ("p three", "h five", "entailment"),
    ("p three", "h six", "contradiction"),
    ("p three", "h seven", "contradiction"),
]
TRIPLES: Rows = [
    ("p one", ["h one"], ["h two"]),
    ("p two", ["h four"], []),
    ("p three", ["h five"], ["h six", "h seven"]),
]


def nli(*names: str) -> dict[str, Content]:
    rows = [
        {
            "gold_label": label,
            "sentence1": first,
            "sentence2": second,
            "pairID": "1",
            "captionID": "1",
        }
        for first, second, label in [*NLI, ("p four", "h eight", "-")]
    ]
    return {name: lines(*rows) for name in names}


RAW["snli"] = (nli(*(f"snli_1.0/snli_1.0_{s}.jsonl" for s in ("train", "dev", "test"))), TRIPLES)
RAW["mnli"] = (
    nli(
        "multinli_1.0/multinli_1.0_train.jsonl",
        "multinli_1.0/multinli_1.0_dev_matched.jsonl",
        "multinli_1.0/multinli_1.0_dev_mismatched.jsonl",
    ),
    TRIPLES,
)
RAW["mnli_triples"] = (
    {
        "nli_datasets/mnli/dev.csv": "premise,hypothesis,label\n"
        + "".join(f'"{a}",{b},{c}\n' for a, b, c in NLI)
    },
    TRIPLES,
)
RAW["qnli"] = (
    {
        "nli_datasets/qnli/dev.csv": "premise,hypothesis,label\n"
        'who?,"Ann, she",entailment\nwho?,rain,not_entailment\nwhy?,because,entailment\n'
        "when?,now,entailment\n"
    },
    [("who?", ["Ann, she"], ["rain"]), ("why?", ["because"], []), ("when?", ["now"], [])],
)
NUMBERS = {"entailment": 0, "neutral": 1, "contradiction": 2}
RAW["snli_triples"] = (
    {
        f"data/snli/{split}.txt": tabs(*((a, b, NUMBERS[c]) for a, b, c in NLI))
        for split in ("train", "dev", "test")
    },
    TRIPLES,
)

# Pairs of other formats.
RAW["arxiv_title_abstract"] = (
    {
        "processed_data/20200101/per_category/cs.AI.tsv.xz": lzma.compress(
            b"\tabstract\tacm_class\tarxiv_id\ttitle\tupdated\n"
            b'1\tabstract one\t\t1\ttitle one\t\n2\t"abstract ""two"""\t\t2\ttitle two\t\n'
            b"3\tabstract three\t\t3\ttitle three\t\n"
        )
    },
    [
        ("title one", ["abstract one"], []),
        ("title two", ['abstract "two"'], []),
        ("title three", ["abstract three"], []),
    ],
)
RAW["asset_simplification"] = (
    {
        "dataset/asset.valid.orig": "hard one\nhard two\n",
        "dataset/asset.valid.simp.0": "easy one\neasy two\n",
        "dataset/asset.valid.simp.1": "simple one\nsimple two\n",
    },
    [
        ("hard one", ["easy one"], []),
        ("hard two", ["easy two"], []),
        ("hard one", ["simple one"], []),
        ("hard two", ["simple two"], []),
    ],
)
RAW["nl2bash"] = (
    {
        "data/bash/all.nl": "list files\nmy disk\ncopy\n",
        "data/bash/all.cm": "ls -l\ndf .\ncp a b\n",
    },
    [("list files", ["ls -l"], []), ("my disk", ["df ."], []), ("copy", ["cp a b"], [])],
)
RAW["squad_sentences"] = (
    {
        f"data/processed/{side}-{split}.txt": f"{text} 1 . \n{text} 2 . \n{text} 3 . \n"
        for split in ("train", "dev", "test")
        for side, text in (("src", "sentence"), ("tgt", "question"))
    },
    [(f"question {i} .", [f"sentence {i} ."], []) for i in (1, 2, 3)],
)


def smart(corpus: str, queries: str, qrels: str, lines_: str) -> tuple[dict[str, Content], Rows]:
    return {
        corpus: ".I 1\n.T\nTitle A\n.B\nCACM 1958\n.A\nAnn\n.X\n1\t5\t1\n"
        ".I 2\n.T\nTitle B\nlonger\n.W\ntext b\nmore b\n.X\n2\t5\t1\n.I 3\n.T\nTitle C\n",
        queries: ".I 1\n.W\n what is\na?\n.N\n 1. Ann\n.I 2\n.W\nwhat is b?\n.I 3\n.W\nc?\n",
        qrels: lines_,
    }, [
        ("what is a?", ["Title A"], []),
        ("what is b?", ["Title B longer text b more b", "Title C"], []),
        ("c?", ["Title C"], []),
    ]


RAW["cacm"] = smart(
    "cacm.all", "query.text", "qrels.text", "01 0001  0 0\n02 2  0 0\n02 3  0 0\n03 3  0 0\n"
)
RAW["cisi"] = smart(
    "CISI.ALL", "CISI.QRY", "CISI.REL",
    "     1      1\t0\t0.000000\n     2      2\t0\t0.000000\n     2      3\t0\t0.000000\n"
    "     3      3\t0\t0.000000\n",
)  # fmt: skip
RAW["datatalks_faq"] = (
    {
        "_questions/course/general/001_a.md": "---\nid: a\nquestion: 'Course: can I join\n"
        "  ''late''?'\nsort_order: 1\n---\n\nYes.\n\nDo.\n",
        "_questions/course/general/002_b.md": '---\nid: b\nquestion: "Why?"\n---\n\nBecause.\n',
        "_questions/course/module-1/001_c.md": "---\nid: c\nquestion: How?\n---\nSo.\n",
        "_questions/course/_metadata.yaml": "name: course\n",
    },
    [
        ("Course: can I join 'late'?", ["Yes.\n\nDo."], []),
        ("Why?", ["Because."], []),
        ("How?", ["So."], []),
    ],
)
RAW["disfl_qa"] = (
    {
        f"{split}.json": json.dumps(
            {f"id{i}": {"original": f"what {i}?", "disfluent": f"what no {i}?"} for i in range(3)}
        )
        for split in ("train", "dev", "test")
    },
    [(f"what no {i}?", [f"what {i}?"], []) for i in range(3)],
)
RAW["squad_paragraphs"] = (
    {
        "data/squad/dev.json": json.dumps(
            [{"context": f"c {i}", "question": f"q {i}?", "answer": "a"} for i in range(3)]
        )
    },
    [(f"q {i}?", [f"c {i}"], []) for i in range(3)],
)
RAW["fever"] = (
    {
        "data/fever/test.jsonl": lines(
            {"claim": "one", "label": "SUPPORTS", "evidence": ["first .", "second ."]},
            {"claim": "none", "label": "NOT ENOUGH INFO", "evidence": []},
        ),
        "data/fever/validation.jsonl": lines(
            {"claim": "two", "label": "REFUTES", "evidence": ["third ."]},
            {"claim": "three", "label": "SUPPORTS", "evidence": ["fourth ."]},
        ),
    },
    [("one", ["first . second ."], []), ("two", ["third ."], []), ("three", ["fourth ."], [])],
)
RAW["flickr8k_captions"] = (
    {
        "Flickr8k.token.txt": tabs(
            *((f"1.jpg#{i}", f"dog {i} .") for i in range(5)),
            *((f"2.jpg#{i}", f"cat {i} .") for i in range(2)),
        )
    },
    [
        ("dog 0 .", ["dog 1 ."], []),
        ("dog 2 .", ["dog 3 ."], []),
        ("cat 0 .", ["cat 1 ."], []),
    ],
)
RAW["medical_rqe"] = (
    {
        "MEDIQA_Task2_RQE/MEDIQA2019-Task2-RQE-TrainingSet-AMIA2016.xml": (
            '<?xml version="1.0" encoding="UTF-8"?>\n<MEDIQA2019-Task2-RQE-TrainingSet-AMIA2016>\n'
            + "".join(
                f'<pair pid="{i}" type="originalQ-shortQ" value="{value}">\n<chq>\n   long {i}\n'
                f"</chq>\n<faq>\n   short {i}\n</faq>\n</pair>\n"
                for i, value in enumerate(("true", "false", "true", "true"))
            )
            + "</MEDIQA2019-Task2-RQE-TrainingSet-AMIA2016>\n"
        )
    },
    [(f"long {i}", [f"short {i}"], []) for i in (0, 2, 3)],
)
RAW["medquad"] = (
    {
        f"{i}_GARD_QA/000000{i}.xml": (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Document id="1" source="GARD" url="u">\n'
            f'<Focus>F</Focus>\n<QAPairs>\n<QAPair pid="1">\n<Question qid="1" qtype="symptoms">'
            f"What of {i} ?</Question>\n<Answer>It is\n  {i}.</Answer>\n</QAPair>\n"
            '<QAPair pid="2"><Question qid="2" qtype="x">Gone?</Question><Answer></Answer></QAPair>'
            "\n</QAPairs>\n</Document>\n"
        )
        for i in (1, 2, 3)
    },
    [(f"What of {i} ?", [f"It is {i}."], []) for i in (1, 2, 3)],
)
RAW["open_trivia"] = (
    {
        "categories/animals": "\n#Q Which one\nsleeps?\n^ Sloth\nA Mouse\nB Sloth\nC Frog\n\n"
        "#Q Which flies?\n^ Bird\nA Bird\nB Cow\n\n",
        "categories/for-kids": "#Q The sea is wet.\n^ True\nA True\nB False\n",
    },
    [
        ("Which one sleeps?", ["Sloth"], ["Mouse", "Frog"]),
        ("Which flies?", ["Bird"], ["Cow"]),
        ("The sea is wet.", ["True"], ["False"]),
    ],
)
RAW["scitldr"] = (
    {
        f"SciTLDR-Data/SciTLDR-A/{split}.jsonl": lines(
            {"source": ["We do.", "It works."], "source_labels": [0, 1], "rouge_scores": [0, 1],
             "paper_id": "p1", "target": ["short one", "short two"], "title": "T"},
            {"source": ["We try."], "source_labels": [1], "rouge_scores": [1], "paper_id": "p2",
             "target": ["short three"], "title": "U"},
        )
        for split in ("train", "dev", "test")
    },
    [
        ("short one", ["We do. It works."], []),
        ("short two", ["We do. It works."], []),
        ("short three", ["We try."], []),
    ],
)  # fmt: skip
RAW["til"] = (
    {
        "ack/bar.md": "# ack --bar\n\nAn egg.\n\n```bash\n$ ack --bar\n```\n",
        "git/a.md": "# Add All\n\nAdd it.\n",
        "vim/b.md": "# Quit\n\nNo way.\n",
        "README.md": "# TIL\n\nNot a note.\n",
    },
    [
        ("ack --bar", ["An egg.\n\n```bash\n$ ack --bar\n```"], []),
        ("Add All", ["Add it."], []),
        ("Quit", ["No way."], []),
    ],
)
RAW["tldr"] = (
    {
        "pages/common/tar.md": "# tar\n\n> Archiving utility.\n> More: <https://a.org>.\n\n"
        "- Create an archive:\n\n`tar cf {{path/to/a.tar}} {{file}}`\n\n"
        "- List:\n\n`tar tf {{a}}`\n",
        "pages.de/common/tar.md": "# tar\n\n> Archive.\n",
    },
    [
        ("Archiving utility.", ["tar"], []),
        ("Create an archive (tar)", ["tar cf path/to/a.tar file"], []),
        ("List (tar)", ["tar tf a"], []),
    ],
)
RAW["wikiqa"] = (
    {
        f"data/wikiqa/{split}.txt": tabs(
            ("q one ?", "right", 1), ("q one ?", "wrong", 0), ("q two ?", "also right", 1),
            ("q three ?", "bad", 0), ("q three ?", "good", 1), ("q three ?", "better", 1),
        )
        for split in ("train", "dev", "test")
    },
    [
        ("q one ?", ["right"], ["wrong"]),
        ("q two ?", ["also right"], []),
        ("q three ?", ["good", "better"], ["bad"]),
    ],
)  # fmt: skip


# Classification and clustering.
def splits(pattern: str, names: str, content: Content) -> dict[str, Content]:
    return {pattern.format(name): content for name in names.split()}


RAW["amazon_reviews"] = (
    splits("dataset_en_{}.json", "train dev test", lines(
        *({"review_id": "r", "product_id": "p", "reviewer_id": "w", "stars": str(stars),
           "review_body": f"body {stars}", "review_title": f"title {stars}", "language": "en",
           "product_category": "book"} for stars in (1, 3, 5)))),
    [(f"title {stars} body {stars}", str(stars)) for stars in (1, 3, 5)],
)  # fmt: skip
RAW["amazon_counterfactual"] = (
    splits("data/EN_{}.tsv", "train valid test",
           tabs(("sentence", "is_counterfactual"), ('I wish it "had', 1), ("It is", 0), ("b", 0))),
    [('I wish it "had', "1"), ("It is", "0"), ("b", "0")],
)  # fmt: skip
RAW["banking77"] = (
    splits("{}.csv", "train test",
           'text,category\nwhere is it?,card_arrival\n"lost, again",lost_card\n"two\nlines",x\n'),
    [("where is it?", "card_arrival"), ("lost, again", "lost_card"), ("two\nlines", "x")],
)  # fmt: skip
RAW["emotion"] = (
    splits("{}.txt", "train val test", "i feel low;sadness\ni can;joy\ni will not;anger\n"),
    [("i feel low", "sadness"), ("i can", "joy"), ("i will not", "anger")],
)
RAW["imdb"] = (
    {
        "aclImdb/train/neg/0_3.txt": "Bad.<br />Very bad.",
        "aclImdb/train/neg/1_1.txt": "Worse.",
        "aclImdb/train/pos/0_9.txt": "Good.",
        "aclImdb/train/unsup/0_0.txt": "Who knows.",
        "aclImdb/test/pos/0_9.txt": "Fine.",
    },
    [("Bad.<br />Very bad.", "neg"), ("Worse.", "neg"), ("Good.", "pos")],
)
MTOP = splits("mtop/en/{}.txt", "train eval test", tabs(
    *((str(i), f"IN:{intent}", "0:4:SL:X", f'say "{i}', domain, "en_XX", "[IN:X ]", "{}")
      for i, (intent, domain) in enumerate((("CALL", "calling"), ("STOP", "timer"),
                                            ("PLAY", "music"))))))  # fmt: skip
RAW["mtop_domain"] = (MTOP, [('say "0', "calling"), ('say "1', "timer"), ('say "2', "music")])
RAW["mtop_intent"] = (MTOP, [('say "0', "IN:CALL"), ('say "1', "IN:STOP"), ('say "2', "IN:PLAY")])
RAW["toxic_conversations"] = (
    {
        "train.csv": "id,target,comment_text,severe_toxicity\n1,0.0,nice,0\n2,0.5,bad,0\n"
        "3,0.49,so,0\n"
    },
    [("nice", "0"), ("bad", "1"), ("so", "0")],
)
RAW["tweet_sentiment_extraction"] = (
    splits("{}.csv", "train test",
           "textID,text,selected_text,sentiment\na, I`d have,I`d,neutral\nb,no,no,negative\n"
           "c,,,neutral\nd,yes!,yes,positive\n"),
    [("I`d have", "neutral"), ("no", "negative"), ("yes!", "positive")],
)  # fmt: skip
RAW["amazon_polarity"] = (
    splits("amazon_review_polarity_csv/{}.csv", "train test",
           '"2","Great","It is ""great"", yes"\n"1","Bad","Do not"\n"1","","empty title"\n'),
    [('Great It is "great", yes', "positive"), ("Bad Do not", "negative"),
     ("empty title", "negative")],
)  # fmt: skip
MASSIVE: dict[str, Content] = {
    "1.0/data/en-US.jsonl": lines(
        *({"id": str(i), "locale": "en-US", "partition": part, "scenario": scenario,
           "intent": f"{scenario}_set", "utt": f"say {i}", "annot_utt": "x", "worker_id": "1"}
          for i, (part, scenario) in enumerate(
              (("train", "alarm"), ("dev", "iot"), ("train", "iot"), ("test", "qa"),
               ("train", "play"))))
    )
}  # fmt: skip
RAW["massive_scenario"] = (MASSIVE, [("say 0", "alarm"), ("say 2", "iot"), ("say 4", "play")])
RAW["massive_intent"] = (
    MASSIVE,
    [("say 0", "alarm_set"), ("say 2", "iot_set"), ("say 4", "play_set")],
)
ARXIV: dict[str, Content] = {
    "arxiv-metadata-oai-snapshot.json": lines(
        *({"id": str(i), "submitter": "s", "title": f"Title {i}", "abstract": f"  We {i}.\n",
           "categories": categories, "versions": []}
          for i, categories in enumerate(("hep-ph", "math.CO cs.CG", "cs.CL"))))
}  # fmt: skip
RAW["arxiv_s2s"] = (ARXIV, [("Title 0", "hep-ph"), ("Title 1", "math.CO"), ("Title 2", "cs.CL")])
RAW["arxiv_p2p"] = (
    ARXIV,
    [("Title 0 We 0.", "hep-ph"), ("Title 1 We 1.", "math.CO"), ("Title 2 We 2.", "cs.CL")],
)
PREPRINTS: dict[str, Content] = {
    f"page{page}.json": json.dumps(
        {"messages": [{"status": "ok"}],
         "collection": [{"doi": "10.1101/1", "title": f"T{page}{i}", "authors": "A", "version": "1",
                         "category": f"field {i}", "abstract": f"A{page}{i}", "server": "x"}
                        for i in range(2)]}
    )
    for page in (0, 1)
}  # fmt: skip
for server in ("biorxiv", "medrxiv"):
    places = [(page, i) for page in (0, 1) for i in (0, 1)]
    RAW[f"{server}_s2s"] = (PREPRINTS, [(f"T{p}{i}", f"field {i}") for p, i in places])
    RAW[f"{server}_p2p"] = (PREPRINTS, [(f"T{p}{i} A{p}{i}", f"field {i}") for p, i in places])


def news(subject: str, body: str) -> bytes:
    return f"From: a@b.org\nSubject: {subject}\nLines: 1\n\n{body}\n".encode("latin-1")


RAW["twenty_newsgroups"] = (
    {
        "20news-bydate-train/alt.atheism/49960": news("Re: re: Café", "body one"),
        "20news-bydate-train/alt.atheism/51060": news("FAQ", "body two"),
        "20news-bydate-train/sci.med/1": news("Pain", "body three"),
        "20news-bydate-test/sci.med/2": news("Pills", "body four"),
    },
    [("Café", "alt.atheism"), ("FAQ", "alt.atheism"), ("Pain", "sci.med")],
)
NEWS: dict[str, Content] = {
    "20_newsgroups/alt.atheism/1": news("Re: Café", "body\n\none"),
    "20_newsgroups/alt.atheism/2": news("FAQ", "body two"),
    "20_newsgroups/sci.med/3": news("Pain", "body three"),
}
RAW["newsgroups20"] = (
    NEWS,
    [("body\n\none", "alt.atheism"), ("body two", "alt.atheism"), ("body three", "sci.med")],
)
RAW["newsgroups20_subjects"] = (
    NEWS,
    [("Café", "alt.atheism"), ("FAQ", "alt.atheism"), ("Pain", "sci.med")],
)
REDDIT: dict[str, Content] = {
    f"reddit_title_text_{year}.jsonl.gz": gzip.compress(
        lines(*({"title": f"t{year}{i}", "body": f"b{i}", "subreddit": f"r{i}"} for i in range(2)))
        .encode()
    )
    for year in (2010, 2011)
}  # fmt: skip
PLACES = [(year, i) for year in (2010, 2011) for i in (0, 1)]
RAW["reddit_s2s"] = (REDDIT, [(f"t{year}{i}", f"r{i}") for year, i in PLACES])
RAW["reddit_p2p"] = (REDDIT, [(f"t{year}{i} b{i}", f"r{i}") for year, i in PLACES])
RAW["ag_news"] = (
    splits("data/ag_news_csv/{}.csv", "train test",
           '"3","Oil up","It is ""up"""\n"1","War","No peace"\n"4","Chip","New"\n'),
    [('Oil up It is "up"', "Business"), ("War No peace", "World"), ("Chip New", "Sci/Tech")],
)  # fmt: skip
RAW["hwu64"] = (
    {
        f"Datasets/HWU64/{split}/{file}": content
        for split in ("train", "valid", "test")
        for file, content in (
            ("seq.in", "wake me\nlights on\nwhat time\n"),
            ("label", "alarm_set\niot_on\ndatetime_query\n"),
        )
    },
    [("wake me", "alarm_set"), ("lights on", "iot_on"), ("what time", "datetime_query")],
)
RAW["search_snippets"] = (
    {"data/search_snippets/search_snippets_true_text": "1\tbank stock \n2\tcpu chip \n1\tshop \n"},
    [("bank stock", "1"), ("cpu chip", "2"), ("shop", "1")],
)
RAW["stackoverflow_titles"] = (
    {"data/stackoverflow/stackoverflow_true_text": '18\tHow "do ?\t\n3\tWhy ?\t\n3\tWhen ?\t\n'},
    [('How "do ?', "18"), ("Why ?", "3"), ("When ?", "3")],
)


def snips(intent: str, *utterances: list[str]) -> str:
    pieces = [{"data": [{"text": text, "entity": "x"} for text in parts]} for parts in utterances]
    return json.dumps({intent: pieces}, ensure_ascii=False)


SNIPS = "2017-06-custom-intent-engines"
RAW["snips"] = (
    {
        f"{SNIPS}/PlayMusic/train_PlayMusic_full.json": snips(
            "PlayMusic", ["play ", "Café", " now"], ["play it"]
        ).encode("latin-1"),
        f"{SNIPS}/GetWeather/train_GetWeather_full.json": snips("GetWeather", ["rain in ", "Köln"]),
        f"{SNIPS}/GetWeather/train_GetWeather.json": snips("GetWeather", ["not read"]),
        f"{SNIPS}/GetWeather/validate_GetWeather.json": snips("GetWeather", ["sun"]),
    },
    [("rain in Köln", "GetWeather"), ("play Café now", "PlayMusic"), ("play it", "PlayMusic")],
)
RAW["sst2"] = (
    splits("data/SST2/{}.tsv", "train dev test",
           'a "fine film\t1\nno\t0\nnever\t0\n'),
    [('a "fine film', "1"), ("no", "0"), ("never", "0")],
)  # fmt: skip
RAW["trec_qc"] = (
    {
        "train_5500.label": b"DESC:manner How did it ?\nENTY:cremat Where ?\n"
        b"ABBR:exp What caf\xe9 ?\n",
        "TREC_10.label": "NUM:dist How far ?\n",
    },
    [("How did it ?", "DESC"), ("Where ?", "ENTY"), ("What café ?", "ABBR")],
)
for name, folder, labels in (
    ("tweet_irony", "irony", ("non_irony", "irony")),
    ("tweet_sentiment", "sentiment", ("negative", "neutral")),
):
    RAW[name] = (
        {
            **splits(f"datasets/{folder}/{{}}_text.txt", "train val test", "a \nb #x\n@user c\n"),
            **splits(f"datasets/{folder}/{{}}_labels.txt", "train val test", "1\n0\n1\n"),
            f"datasets/{folder}/mapping.txt": f"0\t{labels[0]}\n1\t{labels[1]}\n",
        },
        [("a", labels[1]), ("b #x", labels[0]), ("@user c", labels[1])],
    )

# Scored and labelled pairs.
RAW["sts12"] = (
    {
        "train/STS.input.MSRpar.txt": "a one\tb one\na two\tb two\n",
        "train/STS.gs.MSRpar.txt": "4.4\n0.8\n",
        "train/STS.input.MSRvid.txt": "a three\tb three\n",
        "train/STS.gs.MSRvid.txt": "5.0\n",
    },
    [("a one", "b one", 4.4), ("a two", "b two", 0.8), ("a three", "b three", 5.0)],
)
STSB = "".join(
    f'main-captions\tMSRvid\t2012test\t000{i}\t{i}.250\tA "man {i}.\tB man {i}.{more}\n'
    for i, more in ((1, ""), (2, "\tA source"), (4, ""))
)
STSB_ROWS: Rows = [(f'A "man {i}.', f"B man {i}.", i + 0.25) for i in (1, 2, 4)]
RAW["stsb"] = (splits("stsbenchmark/sts-{}.csv", "train dev test", STSB), STSB_ROWS)
RAW["stsb_train_dev"] = (splits("stsbenchmark/sts-{}.csv", "train dev", STSB), STSB_ROWS)
RAW["sts12_15"] = (
    {
        "data/sts/semeval-sts/2012/OnWN.test.tsv": '4\ta "one\tb one\n\tunscored\tpair\n',
        "data/sts/semeval-sts/2014/images.test.tsv": "3.8\ta two\tb two\n0\ta three\tb three\n",
        "data/sts/semeval-sts/2016/headlines.test.tsv": "1\tnot\tread\n",
    },
    [('a "one', "b one", 4.0), ("a two", "b two", 3.8), ("a three", "b three", 0.0)],
)
RAW["mrpc"] = (
    splits("data/para/msr/msr-para-{}.tsv", "train val test", tabs(
        ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        (1, 1, 2, 'He said "a', "She said a"), (0, 3, 4, "b", "c"), (1, 5, 6, "d", "e"))),
    [('He said "a', "She said a", 1), ("b", "c", 0), ("d", "e", 1)],
)  # fmt: skip
RAW["quora"] = (
    splits("data/quora/{}.txt", "train dev test",
           tabs(("How a ?", "What a ?", 1), ("b ?", "c ?", 0), ("d ?", "e ?", 1))),
    [("How a ?", "What a ?", 1), ("b ?", "c ?", 0), ("d ?", "e ?", 1)],
)  # fmt: skip
