"""`encode_corpus`: a corpus of any size into a folder of embeddings, part by part, each id once.

Killed at any moment, the same command goes on: parts appear whole, what stood under temporary names
is removed, and the end is the same bytes as without the interruption.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nvembed_jax.corpus.manifest import (
    BLOCK,
    Plan,
    check_folder,
    finish_manifest,
    make_plan,
    read_manifest,
)
from nvembed_jax.corpus.parts import CorpusJob, PartEncoder
from nvembed_jax.corpus.progress import Progress
from nvembed_jax.corpus.source import Source, scan
from nvembed_jax.runtime import progress_bar

BACKENDS = ("local", "ray")


class CorpusReport(NamedTuple):
    """What a run did.

    Attributes:
        texts: of the whole corpus. parts: of the whole corpus. encoded: texts, by this run.
        complete: whether all parts of all shards are there. missing: parts that are not.
        skipped: files of a folder that were passed over.
    """

    texts: int
    parts: int
    encoded: int
    complete: bool
    missing: int
    skipped: list[str]


def encode_corpus(
    job: CorpusJob,
    *,
    backend: str = "local",
    workers: int | None = None,
    say: Callable[[str], Any] = lambda line: None,
) -> CorpusReport:
    """Encodes the parts of a job's shard that are not there yet.

    Args:
        backend: "local": processes of this machine. "ray": actors of a Ray cluster, which all see
            the input and the folder under the same paths.
        workers: processes or actors; None: one a GPU, else one.
        say: hears what people should know: workers that ended, and progress without a terminal.

    Raises:
        FileNotFoundError: the input, or the folder's parent, is missing.
        ValueError: a bad line of the input; a folder that was begun with another model, input or
            settings; an unknown backend.
        ChildProcessError: workers were killed again and again.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    _check_places(job.source, job.folder)
    plan, skipped = _plan(job)
    job.folder.mkdir(exist_ok=True)
    with _cleaned(job, plan):
        run = _encode_here if backend == "local" else _encode_with_ray
        encoded = run(job, plan, workers, say)
        complete = finish_manifest(job.folder, plan)
    missing = sum(not (job.folder / part.name).exists() for part in plan.parts)
    return CorpusReport(plan.texts, len(plan.parts), encoded, complete, missing, skipped)


def _encode_here(job: CorpusJob, plan: Plan, workers: int | None, say: Callable[[str], Any]) -> int:
    from nvembed_jax.corpus.processes import ProcessPool, make_slots, visible_gpus

    gpus = visible_gpus(os.environ)
    count = workers or max(len(gpus), 1)
    if count > 1:
        slots = make_slots(count, gpus, _cores())
        return ProcessPool(job, plan, slots, say).run(partial(_progress, job, plan, say))
    encoder = PartEncoder(job, plan)
    pending = job.pending(plan)
    with _progress(job, plan, say, pending) as progress:
        for number in pending:
            encoder.encode(number, progress.add)
        return progress.made


def _encode_with_ray(
    job: CorpusJob, plan: Plan, workers: int | None, say: Callable[[str], Any]
) -> int:
    from nvembed_jax.corpus.ray_backend import encode_with_ray

    pending = job.pending(plan)
    # One part even where none is pending: the actor compares the manifest with its model.
    numbers = pending or list(range(job.shard_index, len(plan.parts), job.num_shards))[:1]
    with _progress(job, plan, say, pending) as progress:

        def count(number: int) -> None:
            progress.add(plan.parts[number].texts if pending else 0)

        if numbers:
            encode_with_ray(job, plan, numbers, workers, count)
        return progress.made


def _progress(
    job: CorpusJob, plan: Plan, say: Callable[[str], Any], pending: list[int]
) -> Progress:
    own = plan.parts[job.shard_index :: job.num_shards]
    total, left = sum(part.texts for part in own), sum(plan.parts[n].texts for n in pending)
    return Progress(total, total - left, say)


def _plan(job: CorpusJob) -> tuple[Plan, list[str]]:
    """The plan, with the part size of the manifest that is there unless another is asked for."""
    check_folder(job.folder)
    manifest = read_manifest(job.folder)
    block, size = job.part_texts or BLOCK, job.part_texts
    if manifest is not None and size in (None, manifest["part_texts"]):
        block, size = manifest["block"], manifest["part_texts"]
    with progress_bar(0, None, "text read") as bar:
        facts = scan(job.source, block, lambda count: bar.update(count - bar.n))
    return make_plan(job.source.name, facts, block, size, job.suffix), facts.skipped


def _check_places(source: Source, folder: Path) -> None:
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"{folder}: cannot be made, there is no folder {folder.parent}")
    inputs, out = Path(source.path).resolve(), folder.resolve()
    if inputs == out or (inputs.is_dir() and inputs in out.parents):
        raise ValueError(f"{folder}: lies in the input, and would be read as a part of it")


@contextmanager
def _cleaned(job: CorpusJob, plan: Plan) -> Iterator[None]:
    """Removes what killed workers leave, before and after, unless others work in the folder.

    The lock is on the folder itself. On a file system without locks nothing is removed.
    """
    handle = os.open(job.folder, os.O_RDONLY)
    try:
        _clean_alone(handle, job, plan)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        try:
            yield
        finally:
            _clean_alone(handle, job, plan)
    finally:
        os.close(handle)


def _clean_alone(folder: int, job: CorpusJob, plan: Plan) -> None:
    """Takes the lock for itself, and removes leftovers if it got it."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    _remove_leftovers(job, plan)


def _remove_leftovers(job: CorpusJob, plan: Plan) -> None:
    """Temporary files, and .ids files whose .npy was never finished.

    Of a shard only its own: on some file systems other machines' locks cannot be seen.
    """
    own = {Path(part.name).stem for part in plan.parts[job.shard_index :: job.num_shards]}
    for path in job.folder.glob(".*.part"):
        if job.num_shards == 1 or path.name[1:].partition(".")[0] in own:
            path.unlink(missing_ok=True)
    for path in job.folder.glob("part-*.ids"):
        if path.stem in own and not path.with_suffix(".npy").exists():
            path.unlink()


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
