"""mteb scores what we score: our models in its tasks, our folders as its tasks, what it knows."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from made_tasks import INSTRUCTION, MADE, TOPICS, FakeModel, RandomModel, labelled, write_all

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import save_model
from nvembed_jax.config import nv_embed_v2, tiny
from nvembed_jax.eval import evaluate, load_task, mteb_models, probes
from nvembed_jax.eval.mteb_encoder import MtebEncoder, hub_tasks, load, local_tasks, model_meta
from nvembed_jax.eval.mteb_models import OWN_MODEL, known_models
from nvembed_jax.eval.mteb_rows import mteb_score_name
from nvembed_jax.model import init_params

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning"),
]
SAMPLE = 512


@pytest.fixture(scope="module", autouse=True)
def mteb(tmp_path_factory):
    """The package, which makes a folder for its cache when it is imported."""
    os.environ.setdefault("MTEB_CACHE", str(tmp_path_factory.mktemp("mteb")))
    import datasets
    import mteb

    datasets.disable_progress_bars()
    return mteb


@pytest.fixture(scope="module", autouse=True)
def few_texts_to_cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "CLUSTER_SAMPLE", SAMPLE)
        yield


class NoisyModel(FakeModel):
    """Texts near their topic, so that scores are neither 0 nor 1."""

    def __init__(self):
        super().__init__("noisy")
        self.random = RandomModel()

    def vector(self, text: str) -> np.ndarray:
        near = np.zeros(16, np.float32)
        near[: len(TOPICS) + 1] = super().vector(text)
        return near + 0.35 * self.random.vector(text)


MODELS = {"noisy": NoisyModel, "random": RandomModel, "ties": FakeModel}


def by_mteb(mteb, model, folders, **settings) -> dict[str, dict[str, float]]:
    """The scores of every task by `mteb.evaluate`."""
    tasks = local_tasks(folders, **settings)
    for task in tasks:
        if hasattr(task, "max_documents_per_cluster"):
            task.max_documents_per_cluster = SAMPLE
    model = model if isinstance(model, MtebEncoder) else MtebEncoder(model)
    done = mteb.evaluate(model, tasks, cache=None, co2_tracker=False, show_progress_bar=False)
    return {result.task_name: next(iter(result.scores.values()))[0] for result in done.task_results}


def assert_equal(type: str, ours: dict[str, float], theirs: dict[str, float], atol=1e-6) -> int:
    """Every metric of ours is mteb's; returns how many it has. It rounds rankings to 5 digits."""
    rounded = type in ("retrieval", "reranking")
    compared = 0
    for name, value in ours.items():
        their_name = mteb_score_name(type, name)
        if their_name is None:
            assert name not in theirs
            continue
        got = theirs[their_name]
        assert abs(value - got) <= (5.1e-6 if rounded else atol), (name, value, got)
        compared += 1
    return compared


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    return write_all(tmp_path_factory.mktemp("mteb") / "sets")


@pytest.fixture(scope="module")
def scored(mteb, folders, tmp_path_factory):
    """By name of the model: what `evaluate` says and what mteb says of every task."""

    def both(make):
        out = tmp_path_factory.mktemp("out") / "results.json"
        ours = evaluate(make(), folders, out=out, seed=42)
        return ours["tasks"], by_mteb(mteb, make(), folders)

    return {name: both(make) for name, make in MODELS.items()}


@pytest.mark.parametrize("type", MADE)
@pytest.mark.parametrize("model", MODELS)
def test_scores_equal_those_of_mteb(scored, model, type):
    ours, theirs = (part[type] for part in scored[model])
    expected = {"retrieval": 35, "reranking": 3, "pair_classification": 25, "sts": 6}.get(type, 2)
    assert assert_equal(type, ours["scores"], theirs) == expected
    assert theirs["main_score"] == pytest.approx(ours["score"], abs=5.1e-6)
    if model == "noisy":
        assert 0 < ours["score"] < 1


@pytest.mark.parametrize("type", ["retrieval", "classification", "clustering"])
def test_samples_and_seeds_equal_those_of_mteb(mteb, make_task, tmp_path, type):
    folder, settings = make_task(type), {"limit": 4, "seed": 7, "samples_per_label": 3}
    ours = evaluate(NoisyModel(), [folder], out=tmp_path / "r.json", **settings)["tasks"][type]
    theirs = by_mteb(mteb, NoisyModel(), [folder], **settings)[type]
    assert_equal(type, ours["scores"], theirs)
    whole = evaluate(NoisyModel(), [folder], out=tmp_path / "w.json", seed=42)["tasks"][type]
    assert whole["scores"] != ours["scores"]


def test_every_evaluation_draws_the_same_rows(mteb, make_task):
    tasks = local_tasks([make_task("clustering")])
    tasks[0].max_documents_per_cluster = SAMPLE
    first, second = (
        mteb.evaluate(MtebEncoder(NoisyModel()), tasks, cache=None, co2_tracker=False)
        for _ in range(2)
    )
    scores = [done.task_results[0].scores["test"][0]["v_measures"] for done in (first, second)]
    assert scores[0] == scores[1]


def test_a_split_is_named_as_it_is(mteb, make_task, tmp_path):
    rows = labelled(10, "train") + [{**r, "split": "validation"} for r in labelled(6, "test")]
    folder = make_task("classification", classification=rows)
    (task,) = local_tasks([folder])
    assert task.metadata.eval_splits == ["validation"]
    ours = evaluate(NoisyModel(), [folder], out=tmp_path / "r.json", seed=42)
    theirs = by_mteb(mteb, NoisyModel(), [folder])
    assert_equal("classification", ours["tasks"]["classification"]["scores"],
                 theirs["classification"])  # fmt: skip


class Recorder(RandomModel):
    """Remembers every (method, task, text)."""

    def __init__(self):
        super().__init__()
        self.seen: set[tuple[str, str | None, str]] = set()

    def _embed(self, method, inputs, task):
        self.seen |= {(method, task, text) for text in inputs}
        return super()._embed(method, inputs, task)


def test_the_model_reads_the_same_texts_in_the_same_roles(mteb, make_task, tmp_path):
    corpus = [
        {"_id": f"d{i}", "title": ("", "On cats ", "  ")[i % 3], "text": f" cats 0 {i}\n"}
        for i in range(30)
    ]
    folders = [make_task(type) for type in MADE if type != "retrieval"]
    folders.append(make_task("retrieval", corpus=corpus))
    ours, theirs = Recorder(), Recorder()
    evaluate(ours, folders, out=tmp_path / "r.json", seed=42)
    encoder = MtebEncoder(theirs)
    by_mteb(mteb, encoder, folders)
    assert theirs.seen == ours.seen
    assert {(method, task) for method, task, _ in theirs.seen} == {
        ("encode_query", INSTRUCTION), ("encode_document", None), ("encode", INSTRUCTION),
    }  # fmt: skip
    assert encoder.used == dict.fromkeys(MADE, INSTRUCTION)


def test_a_task_without_an_instruction_gets_none(mteb, make_task):
    folder = make_task("sts")
    facts = json.loads((folder / "task.json").read_text())
    (folder / "task.json").write_text(json.dumps({**facts, "instruction": ""}))
    model = Recorder()
    by_mteb(mteb, model, [folder])
    assert {task for _, task, _ in model.seen} == {None}


@pytest.mark.parametrize(
    ("prompt", "name", "type", "expected"),
    [
        ("Own", "SciFact", "Retrieval", "Own"),
        ({"query": "Own"}, "SciFact", "Retrieval", "Own"),
        ("", "SciFact", "Retrieval", ""),
        ({"document": "Other"}, "SciFact", "Retrieval",
         "Given a scientific claim, retrieve documents that support or refute the claim"),
        (None, "STS12", "STS", "Retrieve semantically similar text."),
        (None, "Unheard", "Retrieval",
         "Given a question, retrieve passages that answer the question"),
        (None, "Unheard", "Clustering", "Identify the topic or theme of the given text"),
        (None, "Unheard", "BitextMining", "Retrieve semantically similar text."),
        ("Own", "Mine", "Retrieval", "User's"),
        ("Own", "Silent", "Retrieval", ""),
    ],
)  # fmt: skip
def test_the_nearest_instruction_is_taken(prompt, name, type, expected):
    encoder = MtebEncoder(RandomModel(), instructions={"Mine": "User's", "Silent": ""})
    metadata = SimpleNamespace(prompt=prompt, name=name, type=type)
    assert encoder.instruction_for(metadata) == expected


def test_mteb_takes_it_for_an_encoder_and_nothing_else():
    from mteb.models import CrossEncoderProtocol, EncoderProtocol, SearchProtocol

    encoder = MtebEncoder(RandomModel())
    assert isinstance(encoder, EncoderProtocol)
    assert not isinstance(encoder, SearchProtocol | CrossEncoderProtocol)


def test_similarities_are_cosines():
    encoder = MtebEncoder(RandomModel())
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 8)).astype(np.float32) for n in (3, 5))
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    np.testing.assert_allclose(encoder.similarity(a, b).numpy(), units[0] @ units[1].T, atol=1e-6)
    np.testing.assert_allclose(
        encoder.similarity_pairwise(a, b[:3]).numpy(), (units[0] * units[1][:3]).sum(1), atol=1e-6
    )
    assert encoder.similarity(a[0], b[0]).shape == (1, 1)


@pytest.mark.parametrize("name", [name for name in known_models() if name != OWN_MODEL])
def test_what_is_known_of_published_models_agrees(mteb, name):
    ours, theirs = model_meta(name), mteb.get_model_meta(name)
    assert (ours.name, ours.license, ours.languages) == (name, theirs.license, theirs.languages)
    assert (ours.embed_dim, ours.framework, ours.loader) == (theirs.embed_dim, ["JAX"], load)
    assert ours.n_parameters == pytest.approx(theirs.n_parameters, rel=0.01)
    assert ours.use_instructions == theirs.use_instructions
    assert ours.training_datasets == theirs.training_datasets
    assert ours.max_tokens <= theirs.max_tokens


def test_sizes_are_those_of_the_configuration():
    meta = model_meta("nvidia/NV-Embed-v2")
    assert (meta.n_parameters, meta.embed_dim) == (7_851_016_192, 4096)
    assert meta.max_tokens == nv_embed_v2().text.max_length
    assert meta.n_embedding_parameters == 32000 * 4096


def test_unknown_names_and_what_cannot_be_loaded_are_refused():
    with pytest.raises(ValueError, match="did you mean 'nvidia/NV-Embed-v2'"):
        model_meta("nvidia/NV-Embed-v3")
    with pytest.raises(ValueError, match="expected one of nvidia/NV-Embed-v1"):
        load("x")
    with pytest.raises(ValueError, match="cannot load revision 'abc'"):
        load("nvidia/NV-Embed-v2", "abc")
    with pytest.raises(ValueError, match="cannot load on 'cuda:0'"):
        load("nvidia/NV-Embed-v2", device="cuda:0")
    with pytest.raises(ValueError, match="'organization/model'; got 'mine'"):
        MtebEncoder(RandomModel(), "mine")
    with pytest.raises(ValueError, match="the instruction of 'SciFact' must be a string"):
        MtebEncoder(RandomModel(), instructions={"SciFact": None})


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory) -> Path:
    """A tiny model under the name of the bundled one."""
    config = dataclasses.replace(
        tiny(vocab_size=8192), name="nvembed-tiny", matryoshka_dims=(8, 64)
    )
    config = dataclasses.replace(
        config, backbone=dataclasses.replace(config.backbone, num_layers=1),
        text=dataclasses.replace(config.text, max_length=32),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "own"
    tokenizer = Path(mteb_models.__file__).parents[1] / "text" / "data"
    save_model(folder, config, init_params(config, jax.random.key(0)), src_folder=tokenizer)
    return folder


@pytest.fixture
def bundled(own_folder, monkeypatch):
    monkeypatch.setattr("nvembed_jax.checkpoint.resolve.BUNDLED_FOLDER", own_folder)


@pytest.mark.usefixtures("bundled")
def test_our_model_runs_by_its_name(mteb, make_task):
    meta = model_meta(OWN_MODEL)
    assert (meta.embed_dim, meta.max_tokens, meta.license) == ([8, 64], 32, "apache-2.0")
    folder = make_task("sts")
    tasks = [local_tasks([folder]) for _ in range(3)]
    quiet = {"cache": None, "co2_tracker": False, "show_progress_bar": False}
    by_name = mteb.evaluate(meta, tasks[0], **quiet)
    by_hand = mteb.evaluate(MtebEncoder(None), tasks[1], **quiet)
    short = mteb.evaluate(meta.load_model(embed_dim=8), tasks[2], **quiet)
    scores = [done.task_results[0].main_score for done in (by_name, by_hand, short)]
    assert scores[0] == scores[1] != scores[2]


def test_our_model_is_not_taken_for_another(own_folder, monkeypatch):
    config = dataclasses.replace(tiny(), name="all-MiniLM-L6-v2")
    monkeypatch.setattr(mteb_models, "load_config", lambda folder: config)
    monkeypatch.setattr(mteb_models, "resolve_model", lambda path: own_folder)
    with pytest.raises(FileNotFoundError, match="the bundled model is all-MiniLM-L6-v2"):
        load(OWN_MODEL)


def test_a_real_model_scores_the_same(mteb, own_folder, make_task, tmp_path):
    model = Embedder.from_pretrained(own_folder)
    folders = [make_task(type) for type in ("sts", "reranking", "classification")]
    ours = evaluate(model, folders, out=tmp_path / "r.json", seed=42)["tasks"]
    encoder = MtebEncoder(model, "me/mine")
    theirs = by_mteb(mteb, encoder, folders)
    for type in ours:
        # mteb encodes other groups of texts: rounding may part what we find equal.
        assert_equal(type, ours[type]["scores"], theirs[type], atol=2e-3)
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.revision) == ("me/mine", model.fingerprint)
    assert (meta.embed_dim, meta.max_tokens, meta.framework) == ([8, 64], 32, ["JAX"])


def test_results_are_filed_by_fingerprint(mteb, make_task, tmp_path):
    cache = mteb.ResultCache(tmp_path / "cache")
    folder = make_task("sts")

    def run(model):
        encoder = MtebEncoder(model, "me/mine")
        mteb.evaluate(encoder, local_tasks([folder]), cache=cache, co2_tracker=False)
        return len(model.calls)

    assert run(RandomModel("one")) > 0
    assert run(RandomModel("one")) == 0
    assert run(RandomModel("two")) > 0
    assert list((tmp_path / "cache").rglob("me__mine/one/sts.json"))


def test_a_failing_task_leaves_the_others(mteb, make_task):
    model = RandomModel()
    model.encode_document = lambda inputs, **kw: np.full((len(inputs), 16), np.nan, np.float32)
    tasks = local_tasks([make_task("retrieval"), make_task("sts")])
    done = mteb.evaluate(
        MtebEncoder(model), tasks, cache=None, co2_tracker=False, raise_error=False
    )
    assert [result.task_name for result in done.task_results] == ["sts"]
    (failed,) = done.exceptions
    assert (failed.task_name, "holds NaN" in failed.exception) == ("retrieval", True)


def test_options_of_encoding_reach_the_model(mteb, make_task):
    seen = []
    model = RandomModel()
    encode = model.encode
    model.encode = lambda inputs, task=None, **kw: seen.append(kw) or encode(inputs, task=task)
    encoder = MtebEncoder(model, encoding={"truncate_dim": 4})
    options = {"batch_size": 8, "precision": "int8"}
    mteb.evaluate(encoder, local_tasks([make_task("sts")]), cache=None, co2_tracker=False,
                  encode_kwargs=options)  # fmt: skip
    assert seen[0] == {"truncate_dim": 4, "precision": "int8"}
    assert encoder.mteb_model_meta.embed_dim == 4


def test_the_corpus_of_a_task_leaves_no_files(mteb, make_task):
    (task,) = local_tasks([make_task("retrieval")])
    task.load_data()
    folder = Path(task.files)
    assert list(folder.rglob("*.arrow"))
    assert task.dataset["default"]["test"]["corpus"][0]["text"] == "cats 0 passage 0"
    task.unload_data()
    assert not folder.exists()


def test_what_mteb_does_not_compute_is_refused(make_task):
    folder = make_task("summarization")
    facts = json.loads((folder / "task.json").read_text())
    (folder / "task.json").write_text(json.dumps({**facts, "main_score": "mean_cosine_spearman"}))
    with pytest.raises(ValueError, match="mteb computes no mean_cosine_spearman"):
        local_tasks([load_task(folder)])


def test_what_needs_mteb_says_so(make_task, monkeypatch):
    monkeypatch.setattr("nvembed_jax.eval.mteb_rows.find_spec", lambda name: None)
    folder = make_task("sts")
    for use in (
        lambda: MtebEncoder(RandomModel()),
        lambda: model_meta("nvidia/NV-Embed-v2"),
        lambda: local_tasks([folder]),
        lambda: hub_tasks(["SciFact"]),
    ):
        with pytest.raises(ImportError, match="mteb is missing: pip install"):
            use()


def test_evaluation_needs_no_mteb():
    script = (
        "import sys\n"
        "import nvembed_jax.eval, nvembed_jax.eval.mteb_encoder\n"
        "heavy = {'mteb', 'torch', 'datasets', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
