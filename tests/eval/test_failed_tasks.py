"""A task that fails leaves the others: folders that are broken, models that give nonsense."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest
from made_tasks import MADE, FakeModel, RandomModel, labelled, pair_rows

from nvembed_jax.eval import compare, evaluate, probes, read_runs
from nvembed_jax.eval.report import markdown, plot, score_tables


@pytest.fixture(autouse=True)
def few_texts_to_cluster(monkeypatch):
    monkeypatch.setattr(probes, "CLUSTER_SAMPLE", 256)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results.json"


class BadModel(RandomModel):
    """Right but for one method, whose matrix `spoil` changes."""

    def __init__(self, method: str, spoil):
        super().__init__("bad")
        good = getattr(self, method)
        setattr(self, method, lambda inputs, task=None, **kw: spoil(good(inputs)))


def with_nan(matrix):
    matrix[1, 2] = np.nan
    return matrix


def ruined(kind: str, folder) -> None:
    """Breaks a made task folder of the type that the kind starts with."""
    if kind == "retrieval without a corpus":
        (folder / "corpus.jsonl.gz").unlink()
    elif kind == "retrieval without judgements":
        (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n")
    elif kind == "retrieval without relevant passages":
        (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t0\nq1\td3\t0\n")
    elif kind == "sts without task.json":
        (folder / "task.json").unlink()
    elif kind == "sts with half a gzip":
        data = (folder / "sts.jsonl.gz").read_bytes()
        (folder / "sts.jsonl.gz").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("retrieval without a corpus", r"corpus\.jsonl\.gz: no such file"),
        ("retrieval without judgements", r"qrels\.tsv: no judgements"),
        ("retrieval without relevant passages", "no query has a relevant passage"),
        ("sts without task.json", "it has no task.json"),
        ("sts with half a gzip", "not a complete gzip file"),
    ],
)
def test_a_broken_folder_leaves_the_others(all_tasks, out, kind, message):
    name = kind.split()[0]
    ruined(kind, next(folder for folder in all_tasks if folder.name == name))
    told = []
    document = evaluate(
        FakeModel(), all_tasks, out=out, on_failure=lambda line, error: told.append((line, error))
    )
    assert list(document["tasks"]) == [type for type in MADE if type != name]
    assert list(document["failed"]) == [name]
    ((line, error),) = told
    assert line == f"{name} failed: {document['failed'][name]}"
    assert re.search(message, str(error))
    assert name not in document["averages"]
    assert read_runs(out)[0].failed == document["failed"]


@pytest.mark.parametrize(
    ("type", "files", "message"),
    [
        ("classification", {"classification": labelled(3, "test")}, "of split 'train'"),
        ("clustering", {"clustering": labelled(1, None)[:1]}, "one label only, 'cats'"),
        ("pair_classification", {"pairs": pair_rows()[:1]}, "the same label, 1"),
    ],
)
def test_labels_that_tell_nothing_leave_the_others(make_task, out, type, files, message):
    folders = [make_task("sts"), make_task(type, **files)]
    document = evaluate(FakeModel(), folders, out=out)
    assert (list(document["tasks"]), list(document["failed"])) == (["sts"], [type])
    assert message in document["failed"][type]


def test_one_class_to_train_on_leaves_the_others(make_task, out):
    rows = [row for row in labelled(4, "train") if row["label"] == "cats"] + labelled(4, "test")
    folders = [make_task("classification", classification=rows), make_task("sts")]
    document = evaluate(FakeModel(), folders, out=out)
    assert list(document["tasks"]) == ["sts"]
    assert "one label only, 'cats'" in document["failed"]["classification"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_nan, "holds NaN or infinity"),
        (lambda m: m * np.inf, "holds NaN or infinity"),
        (lambda m: m[:-1], r"expected embeddings \[\d+, D\] of the model; got"),
        (lambda m: m[0], "expected embeddings"),
        (lambda m: m[:, :0], "expected embeddings"),
        (lambda m: m[:, :3], "width"),
        (lambda m: [[1.0], [1.0, 2.0]], "got no matrix"),
        (lambda m: None, "expected embeddings"),
        (lambda m: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_nonsense_of_a_model_leaves_what_it_can(all_tasks, out, caplog, spoil, message):
    document = evaluate({"bad": BadModel("encode_query", spoil)}, all_tasks, out=out)
    asked = ["retrieval", "reranking"]
    assert list(document["tasks"]) == [type for type in MADE if type not in asked]
    assert list(document["failed"]) == asked
    for name, record in zip(asked, caplog.records, strict=True):
        assert record.levelno == logging.WARNING
        assert record.message == f"{name} failed with bad: {document['failed'][name]}"
        assert re.search(message, document["failed"][name])


def test_other_models_are_scored_on_what_one_failed_at(all_tasks, out):
    models = {"bad": BadModel("encode", with_nan), "good": FakeModel()}
    document = evaluate(models, all_tasks, out=out, baselines=["bm25"])
    good, bm25 = document["others"]
    assert list(document["tasks"]) == ["retrieval", "reranking"]
    assert (list(good["tasks"]), good["failed"]) == (list(MADE), {})
    assert (list(bm25["tasks"]), bm25["failed"]) == (["retrieval", "reranking"], {})


def test_what_failed_is_tried_again(make_task, out):
    folders = [make_task("sts"), make_task("retrieval")]
    model = BadModel("encode_document", with_nan)
    assert list(evaluate(model, folders, out=out)["failed"]) == ["retrieval"]
    mended = RandomModel("bad")
    document = evaluate({"BadModel": mended}, folders, out=out)
    assert (list(document["tasks"]), document["failed"]) == (["sts", "retrieval"], {})
    assert [method for method, _, _ in mended.calls] == ["encode_query", "encode_document"]


def test_a_model_that_cannot_be_loaded_leaves_the_others(make_task, out):
    def load():
        raise FileNotFoundError("no model folder at here")

    folders = [make_task("sts")]
    document = evaluate({"gone": load, "good": FakeModel()}, folders, out=out)
    assert (document["tasks"], document["fingerprint"]) == ({}, "")
    assert document["failed"] == {"sts": "no model folder at here"}
    assert document["others"][0]["tasks"]["sts"]["score"] == pytest.approx(1)
    with pytest.raises(FileNotFoundError, match="no model folder at here"):
        evaluate({"gone": load}, folders, out=out)


def test_nothing_scored_raises_and_writes_nothing(make_task, out, tmp_path):
    bad, folder = BadModel("encode", with_nan), make_task("sts")
    with pytest.raises(ValueError, match="the embedding of text 1 holds NaN"):
        evaluate(bad, [folder], out=out)
    with pytest.raises(ValueError, match="nothing could be scored; the last failure: clustering: "):
        evaluate(bad, [folder, make_task("clustering")], out=out)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        evaluate(bad, [tmp_path / "no"], out=out)
    with pytest.raises(ValueError, match=r"none of the 2 tasks can be read: .*/no: .*/nothing: "):
        evaluate(bad, [tmp_path / "no", tmp_path / "nothing"], out=out)
    assert not out.exists()


def test_an_interruption_is_no_failure(make_task, out):
    def interrupt(matrix):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(BadModel("encode", interrupt), [make_task("sts"), make_task("retrieval")], out=out)
    assert not out.exists()


def test_broken_folders_of_one_name_are_kept_apart(make_task, out, tmp_path):
    places = [tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "c" / "sts"]
    document = evaluate(FakeModel(), [*places, make_task("sts")], out=out)
    assert list(document["failed"]) == ["x", str(places[1]), str(places[2])]


def test_the_report_says_what_failed(all_tasks, out, tmp_path):
    models = {"bad": BadModel("encode_query", with_nan), "good": FakeModel()}
    evaluate(models, [*all_tasks, tmp_path / "gone"], out=out)
    runs = read_runs(out)
    text = markdown(runs, [compare(runs[0], runs[1], samples=5)])
    assert "## Failed" in text
    assert "| gone | bad, good |" in text
    (row,) = [
        line for line in score_tables(runs).splitlines() if line.startswith("| retrieval | r")
    ]
    assert row == "| retrieval | retrieval | ndcg@10 | 4 | failed | 100.0 |"
    macro = score_tables(runs).splitlines()[-1]
    assert macro.endswith("|  | 100.0 |"), "the mean over fewer types stands beside no other"
    assert "1 of retrieval" in text
    plot(runs, tmp_path / "x.svg")
    runs[1].failed.clear()
    assert "## Failed" not in markdown(runs[1:])


def test_results_of_before_failures_were_recorded_can_be_read(make_task, out):
    document = evaluate(FakeModel(), [make_task("sts")], out=out)
    del document["failed"]
    out.write_text(json.dumps(document))
    assert read_runs(out)[0].failed == {}
