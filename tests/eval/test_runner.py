"""`evaluate`: the results file, resumption, several models, baselines, refusals."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from made_tasks import MADE, FakeModel, RandomModel

from nvembed_jax.eval import evaluate, load_task, probes, read_runs, runner
from nvembed_jax.eval.results import read_examples


@pytest.fixture(autouse=True)
def few_texts_to_cluster(monkeypatch):
    monkeypatch.setattr(probes, "CLUSTER_SAMPLE", 256)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results.json"


def test_results_hold_every_task_and_the_averages(all_tasks, out):
    document = evaluate(FakeModel(), all_tasks, out=out)
    assert document == json.loads(out.read_text())
    assert (document["model"], document["fingerprint"]) == ("FakeModel", "perfect")
    assert list(document["tasks"]) == list(MADE)
    for name, result in document["tasks"].items():
        assert (result["type"], result["main_score"]) == (name, MADE[name][0])
        assert result["score"] == result["scores"][result["main_score"]] == pytest.approx(1)
        assert result["instruction"] == "Find texts of the same topic"
    assert document["averages"] == pytest.approx(
        {**dict.fromkeys(MADE, 1.0), "macro": 1.0, "mean_of_tasks": 1.0}
    )
    assert document["settings"]["protocol"] == "mteb"
    assert "others" not in document


def test_macro_is_the_mean_over_types_not_tasks(make_task, out, tmp_path):
    folders = [make_task("sts"), make_task("retrieval")]
    copy = tmp_path / "sets" / "retrieval2"
    os.rename(folders[1], copy)
    facts = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**facts, "name": "retrieval2"}))
    folders = [folders[0], copy, make_task("retrieval")]
    document = evaluate(RandomModel(), folders, out=out)
    scores = [document["tasks"][name]["score"] for name in ("sts", "retrieval2", "retrieval")]
    averages = document["averages"]
    assert averages["retrieval"] == pytest.approx(np.mean(scores[1:]))
    assert averages["macro"] == pytest.approx((scores[0] + np.mean(scores[1:])) / 2)
    assert averages["mean_of_tasks"] == pytest.approx(np.mean(scores))


def test_scores_of_every_query_stand_beside(all_tasks, out):
    document = evaluate(RandomModel(), all_tasks, out=out)
    result = document["tasks"]["retrieval"]
    record, examples = read_examples(out.parent / result["examples"])
    assert record["result"] == result
    assert examples["ndcg_at_10"].mean() == pytest.approx(result["score"])
    assert examples["id"].tolist() == ["q0", "q1", "q2", "q3"]
    assert read_runs(out)[0].examples("sts")["cosine"].shape == (60,)


def test_what_is_done_is_not_done_again(all_tasks, out):
    first = evaluate(RandomModel(), all_tasks, out=out)
    out.unlink()
    again = RandomModel()
    assert evaluate(again, all_tasks, out=out) == first
    assert again.calls == []


def test_an_interrupted_run_goes_on_with_the_next_task(all_tasks, out):
    class Interrupted(RandomModel):
        def encode_query(self, inputs, task=None, **kwargs):
            raise KeyboardInterrupt

    tasks = [load_task(folder) for folder in all_tasks if folder.name != "retrieval"]
    with pytest.raises(KeyboardInterrupt):
        evaluate({"m": Interrupted()}, tasks, out=out)
    assert not out.exists()
    model = RandomModel()
    document = evaluate({"m": model}, tasks, out=out)
    # Reranking, where it stopped, and summarization, which follows.
    assert [method for method, _, _ in model.calls] == ["encode_query", "encode_document", "encode"]
    fresh = evaluate(RandomModel(), tasks, out=out.parent / "fresh.json")
    assert {n: r["score"] for n, r in fresh["tasks"].items()} == {
        n: r["score"] for n, r in document["tasks"].items()
    }


def with_params(value: float) -> RandomModel:
    model = RandomModel("same")
    model.params = {"a": np.full(3, value, np.float32), "b": {"c": np.zeros((2, 2), np.float16)}}
    return model


@pytest.mark.parametrize(
    "change",
    ["model", "weights", "task", "limit", "seed", "protocol", "samples", "encoding", "version"],
)
def test_whatever_changes_a_score_is_scored_again(make_task, out, monkeypatch, change):
    folder = make_task("classification")
    evaluate(with_params(0.0), [folder], out=out)
    model, settings = with_params(1.0 if change == "weights" else 0.0), {}
    if change == "model":
        model.fingerprint = "another"
    elif change == "task":
        facts = json.loads((folder / "task.json").read_text())
        (folder / "task.json").write_text(json.dumps({**facts, "instruction": "other"}))
    elif change == "version":
        monkeypatch.setattr(runner, "SCORING_VERSION", 99)
    elif change != "weights":
        settings = {
            "limit": {"limit": 7},
            "seed": {"seed": 1},
            "protocol": {"protocol": "quick"},
            "samples": {"samples_per_label": 3},
            "encoding": {"encoding": {"truncate_dim": 8}},
        }[change]
    evaluate(model, [folder], out=out, **settings)
    assert len(model.calls) == 1


def test_what_changes_no_score_is_not_scored_again(make_task, out):
    folder = make_task("sts")
    evaluate(with_params(0.0), [folder], out=out)
    model = with_params(0.0)
    evaluate(model, [folder], out=out, encoding={"batch_tokens": 512}, show_progress_bar=False)
    assert model.calls == []


def test_broken_examples_are_scored_again(make_task, out, caplog):
    folder = make_task("sts")
    document = evaluate(FakeModel(), [folder], out=out)
    path = out.parent / document["tasks"]["sts"]["examples"]
    path.write_bytes(path.read_bytes()[:100])
    model = FakeModel()
    evaluate(model, [folder], out=out)
    assert len(model.calls) == 1
    assert "not a file of scored examples" in caplog.text
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"sts\.npz: no such file"):
        read_runs(out)[0].examples("sts")


def test_several_models_are_loaded_one_after_another(make_task, out):
    order = []

    def load(model):
        order.append(model.fingerprint)
        return model

    models = {"good/model": FakeModel(), "bad/model": lambda: load(RandomModel())}
    document = evaluate(models, [make_task("sts")], out=out, baselines=())
    assert order == ["random"]
    assert (document["model"], document["others"][0]["model"]) == ("good/model", "bad/model")
    runs = read_runs(out)
    assert [run.model for run in runs] == ["good/model", "bad/model"]
    assert runs[0].averages["macro"] > runs[1].averages["macro"]


def test_bm25_scores_beside_what_it_can(all_tasks, out):
    document = evaluate(FakeModel(), all_tasks, out=out, baselines=["bm25"])
    (baseline,) = document["others"]
    assert baseline["model"] == "bm25"
    assert set(baseline["tasks"]) == {"retrieval", "reranking"}
    assert set(baseline["averages"]) == {"retrieval", "reranking", "macro", "mean_of_tasks"}


def test_every_model_is_also_scored_with_bm25(all_tasks, out):
    models = {"good": FakeModel(), "random": RandomModel()}
    good, random, *others = [
        evaluate(models, all_tasks, out=out, baselines=["bm25", "hybrid"]),
        *json.loads(out.read_text())["others"],
    ]
    bm25, fused_good, fused_random = others
    assert [run["model"] for run in others] == ["bm25", "good + bm25", "random + bm25"]
    assert len({run["fingerprint"] for run in (good, random, *others)}) == 5
    for fused in (fused_good, fused_random):
        assert set(fused["tasks"]) == {"retrieval", "reranking"}
    for task in bm25["tasks"]:
        low, high = (random["tasks"][task]["score"], bm25["tasks"][task]["score"])
        assert low < fused_random["tasks"][task]["score"] <= high == pytest.approx(1, abs=0.01)
        assert fused_good["tasks"][task]["score"] == pytest.approx(1, abs=0.01)


def test_encoding_options_reach_the_model(make_task, out):
    seen = {}
    model = FakeModel()
    embed = model.encode_query
    model.encode_query = lambda inputs, task=None, **kw: seen.update(kw) or embed(inputs, task)
    evaluate(model, [make_task("reranking")], out=out, encoding={"truncate_dim": 4})
    assert seen == {"truncate_dim": 4}


def test_refusals_come_before_any_work(make_task, out, tmp_path):
    model, folder = FakeModel(), make_task("sts")
    with pytest.raises(ValueError, match="both are named 'sts'"):
        evaluate(model, [folder, folder], out=out)
    with pytest.raises(ValueError, match="unknown baseline 'bm52'; expected bm25"):
        evaluate(model, [folder], out=out, baselines=["bm52"])
    with pytest.raises(ValueError, match="no task is of these types"):
        evaluate(model, [folder], out=out, baselines=["bm25"])
    with pytest.raises(ValueError, match="a model is named 'bm25'"):
        evaluate({"bm25": model}, [folder], out=out, baselines=["bm25"])
    with pytest.raises(ValueError, match="got 0 and 1"):
        evaluate(model, [], out=out)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        evaluate(model, [folder], out=tmp_path / "no" / "results.json")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        evaluate(model, [folder], out=tmp_path)
    assert model.calls == []
    assert sorted(os.listdir(tmp_path)) == ["sets"]


def test_missing_packages_are_told_before_any_work(all_tasks, out, monkeypatch):
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    model = FakeModel()
    with pytest.raises(ImportError, match=r"classification needs sklearn: pip install"):
        evaluate(model, all_tasks, out=out)
    assert model.calls == []
    ranked = [folder for folder in all_tasks if folder.name in ("retrieval", "reranking")]
    assert len(evaluate(model, ranked, out=out)["tasks"]) == 2


def test_a_file_that_is_no_results_file_is_told(tmp_path):
    path = tmp_path / "x.json"
    for content in ("{", "[]", '{"model": "m"}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="not a results"):
            read_runs(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_runs(tmp_path / "no.json")
