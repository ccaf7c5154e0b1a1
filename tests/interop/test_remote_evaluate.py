"""A remote model scores what the model behind the endpoint does, and goes on when stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest
from embeddings_endpoint import Service, made_vector, serving

from nvembed_jax import Embedder
from nvembed_jax.config import tiny
from nvembed_jax.eval import evaluate
from nvembed_jax.interop import open_model
from nvembed_jax.interop.embeddings_client import EmbeddingsClient
from nvembed_jax.model import init_params
from nvembed_jax.text.tokenizer import Tokenizer

NOUNS = ("river", "stone", "lamp", "violin", "harbor", "meadow", "engine", "glove")
TEMPLATE = "Instruct: {task}\nQuery: "


@pytest.fixture(autouse=True)
def cache_at(tmp_path, monkeypatch):
    monkeypatch.setenv("NVEMBED_EMBEDDING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NVEMBED_REMOTE_API_KEY", raising=False)


def write_task(folder: Path, type: str, main_score: str, files: dict) -> Path:
    folder.mkdir(parents=True)
    facts = {"name": folder.name, "type": type, "instruction": f"Find {type} texts"}
    (folder / "task.json").write_text(json.dumps({**facts, "main_score": main_score}))
    for name, rows in files.items():
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def tasks(tmp_path) -> list[Path]:
    """A retrieval task and one of similarity, whose texts carry the instruction on both sides."""
    corpus = [{"_id": f"d{i}", "title": "", "text": f"the {n} of {m}"}
              for i, (n, m) in enumerate((n, m) for n in NOUNS for m in NOUNS[:3])]  # fmt: skip
    queries = [{"_id": f"q{i}", "text": f"where is the {n}?"} for i, n in enumerate(NOUNS)]
    judged = "".join(f"q{i}\td{3 * i + j}\t1\n" for i in range(len(NOUNS)) for j in range(3))
    retrieval = {"corpus.jsonl": corpus, "queries.jsonl": queries,
                 "qrels.tsv": f"query-id\tcorpus-id\tscore\n{judged}"}  # fmt: skip
    pairs = [{"text1": f"a {n}", "text2": f"some {NOUNS[i // 2]}", "score": i}
             for i, n in enumerate(NOUNS)]  # fmt: skip
    return [
        write_task(tmp_path / "find", "retrieval", "recall_at_10", retrieval),
        write_task(tmp_path / "pairs", "sts", "cosine_spearman", {"sts.jsonl": pairs}),
    ]


class Templated:
    """A local model that reads its instruction in the text, as what stands behind an endpoint."""

    fingerprint = "templated"

    def _rows(self, texts: list[str]) -> np.ndarray:
        rows = np.stack([made_vector({}, text) for text in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode(self, inputs, *, task=None, **kwargs):
        return self.encode_query(inputs, task)

    def encode_query(self, inputs, task=None, **kwargs):
        return self._rows([TEMPLATE.format(task=task) + text for text in inputs])

    def encode_document(self, inputs, **kwargs):
        return self._rows(inputs)


def scores(document: dict) -> dict:
    return {name: result["scores"] for name, result in document["tasks"].items()}


def same(left: dict, right: dict) -> None:
    assert scores(left).keys() == scores(right).keys()
    for task, values in scores(left).items():
        assert values == pytest.approx(scores(right)[task], abs=1e-5), task


def test_remote_scores_equal_those_of_the_model_behind_it(tasks, tmp_path):
    local = evaluate(Templated(), tasks, out=tmp_path / "local.json")
    service = Service()
    with serving(service) as url:
        spec = f"openai:{url}#the-model?query_template={TEMPLATE}&texts_a_request=5"
        with open_model(spec) as model:
            remote = evaluate({spec: model}, tasks, out=tmp_path / "remote.json")
    same(remote, local)
    assert remote["model"] == spec
    assert remote["fingerprint"] == model.fingerprint
    assert all(result["instruction"] for result in remote["tasks"].values())


def test_remote_of_our_own_kind_equals_the_embedder(tasks, tmp_path):
    config = tiny(vocab_size=8192)
    config = replace(config, backbone=replace(config.backbone, num_layers=1))
    params = jax.jit(partial(init_params, config))(jax.random.key(3))
    with resources.as_file(resources.files("nvembed_jax.text") / "data") as folder:
        tokenizer = Tokenizer.from_folder(folder, config.text)
    model = Embedder(config, params, tokenizer, dtype="float32")
    local = evaluate(model, tasks, out=tmp_path / "local.json")

    def vector(body: dict, text: str) -> np.ndarray:
        if body["input_type"] == "query":
            return model.encode_query(text, task=body.get("task"), normalize=False)
        return model.encode_document(text, normalize=False)

    with serving(Service(vector=vector)) as url, open_model(f"nvembed:{url}#the-model") as there:
        remote = evaluate({"there": there}, tasks, out=tmp_path / "remote.json")
    same(remote, local)
    assert len(scores(remote)) == len(tasks)


def test_stopped_evaluation_goes_on_without_asking_twice(tasks, tmp_path, monkeypatch):
    ask = EmbeddingsClient.embed

    def interrupted(self, texts, fields):
        if len(service.bodies) > 4:
            raise KeyboardInterrupt
        return ask(self, texts, fields)

    service = Service()
    with serving(service) as url:
        spec = f"openai:{url}#the-model?query_template={TEMPLATE}&texts_a_request=4&concurrency=1"
        monkeypatch.setattr(EmbeddingsClient, "embed", interrupted)
        with open_model(spec) as model, pytest.raises(KeyboardInterrupt):
            evaluate({spec: model}, tasks, out=tmp_path / "r.json")
        monkeypatch.setattr(EmbeddingsClient, "embed", ask)
        answered, stopped_at = set(service.texts[1:]), len(service.bodies)
        with open_model(spec) as model:
            remote = evaluate({spec: model}, tasks, out=tmp_path / "r.json")
        later = [text for body in service.bodies[stopped_at + 1 :] for text in body["input"]]
    assert len(answered) >= 12
    assert not answered & set(later)
    assert len(later) == len(set(later))
    same(remote, evaluate(Templated(), tasks, out=tmp_path / "local.json"))


def test_unreachable_model_leaves_other_results(tasks, tmp_path):
    service = Service(status=lambda *_: (503, {}, "down"))
    with serving(service) as url:
        spec = f"openai:{url}#the-model?max_retries=1&backoff_s=0.01"
        with open_model(spec) as model:
            models = {"here": Templated(), spec: model}
            document = evaluate(models, tasks, out=tmp_path / "r.json")
    assert set(document["tasks"]) == {"find", "pairs"}
    assert not document["others"][0]["tasks"]
