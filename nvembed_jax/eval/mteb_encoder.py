"""mteb's side of evaluation: our models as mteb encoders, our task folders as mteb tasks.

The only file that imports mteb, and only inside functions: mteb brings PyTorch with it.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nvembed_jax.config import ModelConfig
from nvembed_jax.encoder import Embedder
from nvembed_jax.eval import mteb_rows
from nvembed_jax.eval.mteb_models import (
    ORGANIZATION,
    OWN_FACTS,
    OWN_MODEL,
    config_facts,
    config_of,
    known_models,
)
from nvembed_jax.eval.mteb_rows import MtebTask, as_ours, mean_metrics, require_mteb
from nvembed_jax.eval.scoring import Settings
from nvembed_jax.eval.systems import Dense, EmbeddingModel
from nvembed_jax.eval.tasks import Task, load_task

_logger = logging.getLogger(__name__)


class MtebEncoder:
    """A model of ours as mteb's `EncoderProtocol`: `mteb.evaluate(MtebEncoder(model), tasks)`.

    Queries are encoded with the model's query template and the task's instruction, documents
    without an instruction, and the texts of symmetric tasks all with it. The instruction of a task
    is the one in `instructions`, else the task's own prompt for queries, else ours by the task's
    name, else ours by its type. mteb's batch size only says how texts are handed over: the model's
    token budget (`encoding={"batch_tokens": ...}`) makes the batches.

    Attributes:
        model: what encodes. mteb_model_meta: mteb's `ModelMeta` of it.
        used: instruction by name of every task encoded so far (models without a template for them
            read none). Report them with the scores.
    """

    def __init__(
        self,
        model: Any = None,
        name: str | None = None,
        *,
        instructions: Mapping[str, Any] | None = None,
        encoding: Mapping[str, Any] | None = None,
    ) -> None:
        """Wraps a model.

        Args:
            model: an `Embedder`, or anything with its encoding methods; or what
                `Embedder.from_pretrained` takes.
            name: "organization/model", under which mteb files results; one that `model_meta` knows
                also says what else is known of the model. Default: the model's own name.
            instructions: instruction by mteb task name, "" for none.
            encoding: further options of the model's encoding methods (truncate_dim, ...).

        Raises:
            ImportError: mteb is missing. ValueError: an instruction that is no string.
        """
        if model is None or isinstance(model, str | os.PathLike):
            model = Embedder.from_pretrained(model)
        self.model: EmbeddingModel = model
        self.instructions = dict(instructions or {})
        for task, text in self.instructions.items():
            if not isinstance(text, str):
                raise ValueError(f"the instruction of {task!r} must be a string; got {text!r}")
        self.encoding = dict(encoding or {})
        self.used: dict[str, str] = {}
        self.mteb_model_meta: Any = _meta_of(model, name, self.encoding)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Embeddings [N, D] float32 of the texts of a DataLoader of mteb.

        Args:
            inputs: batches {"text": [...], ...}. task_metadata: mteb's, of the task.
            prompt_type: mteb's `PromptType`: query or document; None: a symmetric task.
            kwargs: options of the model's encoding methods.

        Raises:
            ValueError: embeddings with NaN or of a wrong shape.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        system = Dense(self.model, {**self.encoding, **kwargs})
        instruction = self.instruction_for(task_metadata)
        self.used[task_metadata.name] = instruction if system.takes_instructions else ""
        _logger.info("%s: instruction %r", task_metadata.name, self.used[task_metadata.name])
        kind = getattr(prompt_type, "value", prompt_type)
        if kind == "query":
            return system.embed_queries(texts, instruction)
        if kind == "document":
            return system.embed_passages(texts)
        return system.embed(texts, instruction)

    def instruction_for(self, task_metadata: Any) -> str:
        """The instruction of a task: the user's, the task's own, ours; "" for none."""
        if task_metadata.name in self.instructions:
            return self.instructions[task_metadata.name]
        prompt = task_metadata.prompt
        if isinstance(prompt, Mapping):
            prompt = prompt.get("query")
        if prompt is not None:
            return prompt
        return mteb_rows.instruction_by_name_or_type(task_metadata.name, task_metadata.type)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines [N, M], as a tensor, of [N, D] and [M, D] (or of vectors)."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines [N], as a tensor, of each row with the same row."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def load(
    name: str,
    revision: str | None = None,
    *,
    device: str | None = None,
    embed_dim: int | None = None,
    instructions: Mapping[str, str] | None = None,
    **options: Any,
) -> MtebEncoder:
    """Loads a model as mteb does: the `loader` of every `model_meta`.

    Args:
        name: one that `model_meta` knows. revision: not taken; a folder or the newest is loaded.
        device: not taken; JAX chooses. embed_dim: leading dimensions kept (Matryoshka).
        options: of `Embedder.from_pretrained`.

    Raises:
        ValueError: an unknown name, a revision or a device. FileNotFoundError: no such model.
    """
    config_of(name)
    if revision is not None:
        raise ValueError(
            f"cannot load revision {revision!r} of {name}; download it and pass its folder to "
            f"MtebEncoder"
        )
    if device is not None:
        raise ValueError(f"cannot load on {device!r}: JAX chooses (set JAX_PLATFORMS)")
    model = Embedder.from_pretrained(None if name == OWN_MODEL else name, **options)
    encoding = {} if embed_dim is None else {"truncate_dim": embed_dim}
    return MtebEncoder(model, name, instructions=instructions, encoding=encoding)


def model_meta(name: str) -> Any:
    """mteb's `ModelMeta` of a published model, or of ours, that loads and runs it with this code.

    Sizes, lengths and the use of instructions are those of our configuration; licence, dates,
    languages and training sets of published models are those that mteb has on record.

    Args:
        name: one of `known_models()`.

    Raises:
        ValueError: an unknown name. FileNotFoundError: our own model is not installed.
    """
    config = config_of(name)
    require_mteb()
    from mteb import get_model_meta
    from mteb.models import ModelMeta

    if name == OWN_MODEL:
        known = ModelMeta.create_empty().model_dump() | OWN_FACTS
    else:
        known = get_model_meta(name, fetch_from_hf=False).model_dump()
    facts = {
        "name": name,
        "revision": None,
        "loader": load,
        "loader_kwargs": {},
        "output_dtypes": None,
        "extra_requirements_groups": None,
    }
    return ModelMeta(**{**known, **config_facts(config), **facts})


def local_tasks(
    tasks: Iterable[Task | str | os.PathLike[str]],
    *,
    limit: int | None = None,
    seed: int = 42,
    samples_per_label: int | None = None,
    languages: Iterable[str] = ("eng-Latn",),
) -> list[Any]:
    """Task folders as mteb tasks, which need no network.

    `mteb.evaluate(encoder, local_tasks(folders), cache=None, co2_tracker=False)` scores what
    `evaluate(model, folders, seed=42)` scores. The corpus of a retrieval task is written to a
    temporary folder while the task is loaded.

    Args:
        tasks: from `load_task`, or their folders. limit, samples_per_label: see `Settings`.
        seed: of the samples and fits; mteb's own is 42.
        languages: of the texts, as ISO 639-3 and script.

    Raises:
        FileNotFoundError, ValueError: a folder or row that cannot be used, or a main score that
            mteb does not compute. ImportError: mteb is missing.
    """
    require_mteb()
    settings = Settings(limit=limit, seed=seed, samples_per_label=samples_per_label)
    loaded = [task if isinstance(task, Task) else load_task(task) for task in tasks]
    return [_local_task(task, settings, list(languages)) for task in loaded]


def hub_tasks(names: Iterable[str]) -> list[MtebTask]:
    """mteb's own tasks, for `evaluate`; their data is loaded when their turn comes.

    Args:
        names: of tasks ("SciFact"), or of benchmarks ("MTEB(eng, v2)"), which stand for theirs.

    Raises:
        ValueError: an unknown name. ImportError: mteb is missing.
    """
    require_mteb()
    import mteb

    found: dict[str, Any] = {}
    for name in names:
        try:
            if "(" in name:
                found |= {task.metadata.name: task for task in mteb.get_benchmark(name).tasks}
            else:
                found[name] = mteb.get_task(name)
        except KeyError as error:
            reason = str(error.args[0]).removeprefix("KeyError: ")
            raise ValueError(f"no task or benchmark of mteb: {reason}") from None
    return [as_ours(task) for task in found.values()]


def score_hub_task(task: MtebTask, system: Dense) -> tuple[dict[str, float], str]:
    """The mean of every metric over mteb's splits and subsets, and the instruction that was used.

    Raises:
        Exception: whatever mteb raises, where the data cannot be had or the model fails.
    """
    import mteb

    encoder: Any = MtebEncoder(system.model, encoding=system.encoding)
    for part in getattr(task.source.metadata, "tasks", None) or [task.source]:
        part.rng_state = random.Random(part.seed)  # every model is scored on the same draws
    done = mteb.evaluate(
        encoder, task.source, cache=None, co2_tracker=False, show_progress_bar=False
    )
    (result,) = done.task_results
    scores = {**mean_metrics(result.scores), task.main_score: float(result.get_score())}
    return scores, "; ".join(dict.fromkeys(encoder.used.values()))  # a task may stand for several


def _local_task(task: Task, settings: Settings, languages: list[str]) -> Any:
    base, metadata = _base_class(task.type), _metadata(task, languages)

    def load_data(self: Any, num_proc: int | None = None, **kwargs: Any) -> None:
        if not self.data_loaded:
            self.rng_state = random.Random(self.seed)  # every evaluation draws the same rows
            self.files = tempfile.mkdtemp(prefix="nvembed-mteb-")
            self.discard = weakref.finalize(self, shutil.rmtree, self.files, ignore_errors=True)
            self.dataset = mteb_rows.dataset_of(task, settings, self.files)
            self.data_loaded = True

    def unload_data(self: Any) -> None:
        base.unload_data(self)
        self.discard()

    attributes = {
        "metadata": metadata,
        "load_data": load_data,
        "unload_data": unload_data,
        "__module__": __name__,
        **mteb_rows.task_attributes(task, settings),
    }
    return type(task.name, (base,), attributes)(seed=settings.seed)


def _base_class(type: str) -> Any:
    from mteb import abstasks
    from mteb.abstasks.text.summarization import AbsTaskSummarization

    if type == "summarization":
        return AbsTaskSummarization
    name = "Retrieval" if type == "reranking" else mteb_rows.MTEB_TYPES[type]
    return getattr(abstasks, f"AbsTask{name}")


def _metadata(task: Task, languages: list[str]) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    ranked = task.type in ("retrieval", "reranking")
    return TaskMetadata(
        name=task.name,
        description=f"The local task folder {task.folder.name}.",
        type=mteb_rows.MTEB_TYPES[task.type],  # type: ignore[arg-type]
        dataset={"path": str(task.folder), "revision": task.fingerprint},
        prompt={"query": task.instruction} if ranked else task.instruction,  # type: ignore[arg-type]
        eval_splits=[mteb_rows.mteb_split(task)],
        eval_langs=languages,
        main_score=mteb_rows.mteb_main_score(task),
    )


def _meta_of(model: EmbeddingModel, name: str | None, encoding: Mapping[str, Any]) -> Any:
    """The `ModelMeta` of a model at hand; its revision is the model's fingerprint."""
    require_mteb()
    from mteb.models import ModelMeta

    config = getattr(model, "config", None)
    own = getattr(config, "name", None) or type(model).__name__
    name = name or f"{ORGANIZATION}/{own}"
    if "/" not in name:
        raise ValueError(f"mteb wants a name as 'organization/model'; got {name!r}")
    known = model_meta(name) if name in known_models() else ModelMeta.create_empty()
    facts: dict[str, Any] = {"similarity_fn_name": "cosine", "revision": model.fingerprint}
    if isinstance(config, ModelConfig):
        facts |= config_facts(config)
        facts["max_tokens"] = getattr(model, "max_length", config.text.max_length)
    if encoding.get("truncate_dim") is not None:
        facts["embed_dim"] = encoding["truncate_dim"]
    options = {key: value for key, value in encoding.items() if key != "batch_tokens"}
    facts |= {"name": name, "experiment_kwargs": options or None}
    return ModelMeta(**{**known.model_dump(), **facts})
