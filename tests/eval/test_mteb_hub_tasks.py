"""mteb's own tasks in `evaluate` and in `nvembed evaluate --mteb`, the hub stood in for."""

from __future__ import annotations

import json
import os

import pytest
from made_tasks import FakeModel, RandomModel, labelled, write_all

from nvembed_jax.eval import compare, evaluate, probes, read_runs
from nvembed_jax.eval.mteb_encoder import hub_tasks, local_tasks
from nvembed_jax.eval.mteb_rows import mean_metrics
from nvembed_jax.eval.report import markdown

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module", autouse=True)
def mteb(tmp_path_factory):
    os.environ.setdefault("MTEB_CACHE", str(tmp_path_factory.mktemp("mteb")))
    import datasets
    import mteb

    datasets.disable_progress_bars()
    return mteb


@pytest.fixture
def hub(mteb, tmp_path, monkeypatch):
    """Local folders under the names of tasks that mteb would load from a hub."""
    sets = {"STS12": "sts", "SciFact": "retrieval", "TwentyNewsgroupsClustering.v2": "clustering"}
    folders = {folder.name: folder for folder in write_all(tmp_path / "hub")}
    get_task = mteb.get_task

    def get(name):
        if name not in sets:
            return get_task(name)
        folder = folders[sets[name]]
        facts = json.loads((folder / "task.json").read_text())
        (folder / "task.json").write_text(json.dumps({**facts, "name": name}))
        (task,) = local_tasks([folder])
        if name.startswith("Twenty"):
            task.max_documents_per_cluster = 512
        return task

    monkeypatch.setattr(mteb, "get_task", get)
    monkeypatch.setattr(probes, "CLUSTER_SAMPLE", 512)
    return folders


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results.json"


@pytest.mark.usefixtures("hub")
def test_tasks_of_mteb_stand_beside_ours(make_task, out):
    ours = make_task("classification", classification=labelled(10, "train") + labelled(4, "test"))
    names = ["STS12", "SciFact", "TwentyNewsgroupsClustering.v2"]
    models = {"random": RandomModel(), "perfect": FakeModel()}
    document = evaluate(models, [ours, *hub_tasks(names)], out=out, baselines=())
    assert list(document["tasks"]) == ["classification", *names]
    result = document["tasks"]["SciFact"]
    assert (result["type"], result["main_score"]) == ("retrieval", "ndcg_at_10")
    assert result["score"] == result["scores"]["ndcg_at_10"]
    assert result["instruction"] == "Find texts of the same topic"
    assert set(document["averages"]) == {
        "classification", "clustering", "retrieval", "sts", "macro", "mean_of_tasks",
    }  # fmt: skip
    random, perfect = read_runs(out)
    assert perfect.tasks["STS12"]["score"] == pytest.approx(1)
    comparison = compare(random, perfect, samples=5)
    assert list(comparison.tasks) == ["classification"]
    assert "| SciFact | retrieval | ndcg@10 |  |" in markdown([random, perfect], [comparison])
    with pytest.raises(ValueError, match="SciFact: mteb scored it"):
        random.examples("SciFact")


@pytest.mark.usefixtures("hub")
def test_models_are_scored_on_the_same_draws_as_alone(out):
    (task,) = hub_tasks(["TwentyNewsgroupsClustering.v2"])
    models = {"first": RandomModel("a"), "second": RandomModel("b")}  # the same embeddings
    both = evaluate(models, [task], out=out)
    scores = [run["tasks"][task.name]["score"] for run in (both, both["others"][0])]
    assert scores[0] == scores[1]


@pytest.mark.usefixtures("hub")
def test_what_mteb_scored_is_not_scored_again(out):
    first = evaluate(RandomModel(), hub_tasks(["STS12"]), out=out)
    model = RandomModel()
    assert evaluate(model, hub_tasks(["STS12"]), out=out) == first
    assert model.calls == []


@pytest.mark.usefixtures("hub")
def test_a_task_that_cannot_be_had_leaves_the_others(out):
    tasks = hub_tasks(["STS12", "SciFact"])

    def unreachable(**kwargs):
        raise ConnectionError("cannot reach the hub")

    tasks[1].source.load_data = unreachable
    document = evaluate(RandomModel(), tasks, out=out)
    assert list(document["tasks"]) == ["STS12"]
    assert document["failed"] == {"SciFact": "cannot reach the hub"}


def test_names_are_those_of_mteb(mteb):
    tasks = hub_tasks(["SciFact", "MTEB(eng, v2)", "STS12"])
    assert (tasks[0].name, tasks[0].type) == ("SciFact", "retrieval")
    assert len({task.name for task in tasks}) == len(tasks) == 42
    assert {"summarization", "reranking", "clustering"} < {task.type for task in tasks}
    with pytest.raises(ValueError, match="Did you mean: 'SciFact'"):
        hub_tasks(["SciFactt"])
    with pytest.raises(ValueError, match=r"Did you mean: MTEB\(eng, v2\)"):
        hub_tasks(["MTEB(eng, v3)"])


@pytest.mark.usefixtures("hub")
def test_bm25_does_not_go_through_mteb(make_task, out):
    with pytest.raises(ValueError, match="no task is of these types"):
        evaluate(RandomModel(), hub_tasks(["SciFact"]), out=out, baselines=["bm25"])
    tasks = [make_task("retrieval"), *hub_tasks(["SciFact"])]
    document = evaluate(RandomModel(), tasks, out=out, baselines=["bm25"])
    assert list(document["others"][0]["tasks"]) == ["retrieval"]


def test_metrics_are_means_over_splits_and_subsets():
    scores = {
        "test": [{"acc": 0.5, "f1": float("nan"), "langs": ["en"]}, {"acc": 0.7, "f1": 1.0}],
        "dev": [{"acc": 0.9, "f1": 0.0, "more": 1}],
    }
    assert mean_metrics(scores) == {"acc": pytest.approx(0.7)}
