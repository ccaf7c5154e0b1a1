"""AIR-Bench's files, in the form in which they are published, become task folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nvembed_jax.data.air_bench import convert, find_sets, main
from nvembed_jax.eval import evaluate, load_task

DOCS = ["a river in spring", "the old stone bridge", "a lamp by the door", "wind over the sea"]


def write_rows(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def publish(root: Path, repository: str, dataset: str, version: str = "24.05", split: str = "dev",
            qrels: list | None = None, beside: bool = True) -> Path:  # fmt: skip
    """A repository and its qrels repository, as the hub has them."""
    folder = root / repository / f"AIR-Bench_{version}" / dataset
    write_rows(folder / "corpus.jsonl", [{"id": f"doc-{i}", "text": t} for i, t in enumerate(DOCS)])
    queries = [{"id": "q-0", "text": "water"}, {"id": "q-1", "text": "light at night"}]
    write_rows(folder / f"{split}_queries.jsonl", queries)
    if qrels is None:
        qrels = [("q-0", "doc-0", 1), ("q-0", "doc-3", 1), ("q-0", "doc-2", 0), ("q-1", "doc-2", 1)]
    rows = [dict(zip(("qid", "docid", "relevance"), row, strict=True)) for row in qrels]
    other = root / f"qrels-{repository}-{split}" / f"AIR-Bench_{version}" / dataset
    if beside:
        write_rows(other / f"{split}_qrels.jsonl", rows)
    return folder


class Hashed:
    """Embeddings by the words of a text."""

    fingerprint = "hashed"

    def encode(self, inputs, **kwargs):
        rows = np.full((len(inputs), 32), 0.1, np.float32)
        for row, text in zip(rows, inputs, strict=True):
            for word in text.split():
                row[sum(word.encode()) % 32] += 1
        return rows

    def encode_query(self, inputs, task=None, **kwargs):
        return self.encode(inputs)

    def encode_document(self, inputs, **kwargs):
        return self.encode(inputs)


def test_both_settings_become_task_folders_with_their_main_scores(tmp_path):
    air = tmp_path / "air"
    publish(air, "qa_wiki_en", "default")
    publish(air, "long-doc_arxiv_en", "llama2")
    folders, without = convert(air, tmp_path / "sets")
    assert without == []
    assert [folder.name for folder in folders] == ["long-doc_arxiv_en_llama2", "qa_wiki_en_default"]
    tasks = [load_task(folder) for folder in folders]
    assert [task.main_score for task in tasks] == ["recall_at_10", "ndcg_at_10"]
    assert tasks[0].instruction.startswith("Given a question")
    for task in tasks:
        assert task.data.corpus_ids == ("doc-0", "doc-1", "doc-2", "doc-3")
        assert task.data.queries == ("water", "light at night")
        assert task.data.qrels == {"q-0": {"doc-0": 1, "doc-3": 1, "doc-2": 0}, "q-1": {"doc-2": 1}}
    document = evaluate(Hashed(), tasks, out=tmp_path / "r.json")
    assert document["tasks"]["long-doc_arxiv_en_llama2"]["score"] == 1  # of four passages
    assert 0 < document["tasks"]["qa_wiki_en_default"]["score"] < 1


def test_newest_version_is_taken_unless_one_is_named(tmp_path):
    for version in ("24.04", "24.05"):
        publish(tmp_path, "qa_law_en", "default", version)
    (found,) = find_sets(tmp_path)
    assert "24.05" in str(found.corpus)
    assert "24.05" in str(found.qrels)
    (found,) = find_sets(tmp_path / "qa_law_en", version="AIR-Bench_24.04")
    assert "24.04" in str(found.corpus)
    with pytest.raises(FileNotFoundError, match="in AIR-Bench_23"):
        find_sets(tmp_path, version="AIR-Bench_23")


def test_sets_without_judgements_are_named(tmp_path):
    publish(tmp_path / "air", "qa_web_en", "default")
    publish(tmp_path / "air", "qa_news_en", "default", beside=False)
    folders, without = convert(tmp_path / "air", tmp_path / "sets")
    assert [folder.name for folder in folders] == ["qa_web_en_default"]
    assert without == ["qa_news_en_default"]
    with pytest.raises(
        FileNotFoundError, match=r"no dev_qrels.jsonl for qa_news_en_default.*not pu"
    ):
        convert(tmp_path / "air" / "qa_news_en", tmp_path / "more")


def test_files_of_ones_own_are_taken_with_a_kind(tmp_path):
    folder = publish(tmp_path / "air", "papers", "one", split="test")
    qrels = tmp_path / "air" / "qrels-papers-test" / "AIR-Bench_24.05" / "one" / "test_qrels.jsonl"
    qrels.rename(folder / "test_qrels.jsonl")
    with pytest.raises(ValueError, match="pass the kind"):
        convert(folder, tmp_path / "sets", split="test")
    folders, _ = convert(folder, tmp_path / "sets", split="test", kind="long-doc")
    assert load_task(folders[0]).main_score == "recall_at_10"
    assert folders[0].name == "one"
    with pytest.raises(ValueError, match="one of qa, long-doc; got 'long'"):
        find_sets(folder, kind="long", split="test")


def test_conversion_goes_on_and_leaves_what_is_there(tmp_path):
    publish(tmp_path / "air", "qa_wiki_en", "default")
    folders, _ = convert(tmp_path / "air", tmp_path / "sets")
    (folders[0] / "qrels.tsv").write_text("kept")
    publish(tmp_path / "air", "qa_wiki_de", "default")
    folders, _ = convert(tmp_path / "air", tmp_path / "sets")
    assert [folder.name for folder in folders] == ["qa_wiki_de_default", "qa_wiki_en_default"]
    assert (folders[1] / "qrels.tsv").read_text() == "kept"


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("corpus.jsonl", '{"id": "doc-0", "text": "again"}', "corpus.jsonl:5: the id 'doc-0' stan"),
        ("corpus.jsonl", '{"_id": "doc-9", "text": "x"}', "corpus.jsonl:5: no 'id'; expected a st"),
        ("corpus.jsonl", '{"id": "doc-9", "text": null}', "corpus.jsonl:5: 'text' holds NoneType"),
        ("corpus.jsonl", "{", "corpus.jsonl:5: not JSON"),
        ("corpus.jsonl", "[1]", "corpus.jsonl:5: a JSON list; expected an object"),
        ("dev_queries.jsonl", '{"id": 3, "text": "x"}', "dev_queries.jsonl:3: 'id' holds int"),
        ("dev_qrels.jsonl", '{"qid": "q-7", "docid": "doc-0", "relevance": 1}',
         "dev_qrels.jsonl:5: the id 'q-7' does not stand in the queries"),
        ("dev_qrels.jsonl", '{"qid": "q-0", "docid": "doc-7", "relevance": 1}',
         "dev_qrels.jsonl:5: the id 'doc-7' does not stand in the corpus"),
        ("dev_qrels.jsonl", '{"qid": "q-0", "docid": "doc-1", "relevance": 0.5}',
         "dev_qrels.jsonl:5: 'relevance' holds 0.5"),
    ],
)  # fmt: skip
def test_bad_rows_are_told_with_their_place(tmp_path, capsys, file, line, message):
    publish(tmp_path / "air", "qa_wiki_en", "default")
    path = next((tmp_path / "air").rglob(file))
    path.write_text(path.read_text() + line + "\n")
    assert main([str(tmp_path / "air"), str(tmp_path / "sets")]) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "sets").iterdir())


def test_folder_with_something_else_in_it_is_left_alone(tmp_path):
    publish(tmp_path / "air", "qa_wiki_en", "default")
    write_rows(tmp_path / "sets" / "qa_wiki_en_default" / "notes.txt", ["mine"])
    with pytest.raises(FileExistsError, match="is not empty and no task folder"):
        convert(tmp_path / "air", tmp_path / "sets")


def test_judgements_without_a_relevant_passage_are_refused(tmp_path):
    publish(tmp_path / "air", "qa_wiki_en", "default", qrels=[("q-0", "doc-0", 0)])
    with pytest.raises(ValueError, match="no passage is relevant"):
        convert(tmp_path / "air", tmp_path / "sets")


def test_command_prints_the_folders(tmp_path, capsys):
    publish(tmp_path / "air", "qa_wiki_en", "default")
    publish(tmp_path / "air", "long-doc_law_en", "a", beside=False)
    arguments = [str(tmp_path / "air"), str(tmp_path / "sets"), "--instruction", "Find it"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(tmp_path / "sets" / "qa_wiki_en_default")]
    assert shown.err == "no judgements for long-doc_law_en_a\n"
    assert load_task(tmp_path / "sets" / "qa_wiki_en_default").instruction == "Find it"
    assert main([str(tmp_path / "no"), str(tmp_path / "sets")]) == 1
    assert "no such folder" in capsys.readouterr().err
