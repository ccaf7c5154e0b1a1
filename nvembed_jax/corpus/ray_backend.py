"""Parts of a corpus by the actors of a Ray cluster (Ray Data); the only file that imports ray.

Actors take numbers of parts and write the files themselves, as local processes do: what Ray does
again after a death is either there already or is encoded anew, under the same name.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.corpus.manifest import Plan
from nvembed_jax.corpus.parts import CorpusJob, PartEncoder

_EXPECTED = (ValueError, OSError, ImportError)


class ActorRequest(NamedTuple):
    """How many actors, and what each asks of the cluster: a share of CPUs, or a GPU."""

    actors: int
    resources: dict[str, Any]


def actor_request(resources: Mapping[str, Any], workers: int | None) -> ActorRequest:
    """Actors that leave Ray Data a CPU for tasks of its own.

    Actors that hold every CPU are a deadlock without a message: the tasks that would feed them
    wait for a CPU for ever. So they ask for a fraction each where there are too few; actors with
    a GPU hold no CPU.

    Args:
        resources: of the cluster ("CPU", "GPU"). workers: None: one a GPU, else one.

    Raises:
        ValueError: no CPUs, or more workers than GPUs.
    """
    cpus, gpus = float(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    actors = workers or max(gpus, 1)
    if cpus <= 0:
        raise ValueError("the Ray cluster has no CPUs; start it with at least one")
    if gpus and actors > gpus:
        raise ValueError(
            f"{actors} workers for the {gpus} GPUs of the Ray cluster; each takes a whole one: ask "
            f"for at most {gpus}"
        )
    if gpus:
        return ActorRequest(actors, {"num_gpus": 1.0})
    left = cpus - 1 if cpus > 1 else cpus / 2
    share = math.floor(min(1.0, left / actors) * 10_000) / 10_000  # Ray's own precision
    if share <= 0:
        raise ValueError(f"{actors} workers are too many for the Ray cluster's {cpus:g} CPUs")
    return ActorRequest(actors, {"num_cpus": share})


class PartActor:
    """Encodes the parts of a batch of numbers; errors come back as text, so that Ray, which would
    try again, does not hide them.
    """

    def __init__(self, job: CorpusJob, plan: Plan) -> None:
        self._job, self._plan = job, plan
        self._encoder: PartEncoder | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """{"number"} -> {"number", "error"}."""
        return {
            "number": [int(number) for number in batch["number"]],
            "error": [self._encode(int(number)) for number in batch["number"]],
        }

    def _encode(self, number: int) -> str:
        try:
            if self._encoder is None:
                self._encoder = PartEncoder(self._job, self._plan)
            self._encoder.encode(number)
        except _EXPECTED as error:
            return str(error) or type(error).__name__
        return ""


def encode_with_ray(
    job: CorpusJob,
    plan: Plan,
    numbers: list[int],
    workers: int | None,
    on_part: Callable[[int], Any],
) -> None:
    """Encodes parts on the cluster that RAY_ADDRESS names, else on one of this machine.

    Args:
        workers: actors. on_part: called with the number of every part that is there.

    Raises:
        ImportError: ray is missing. ValueError: what an actor raised, or `actor_request`.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise ImportError(
            'the ray backend needs Ray Data: pip install "nvembed_jax[ray]"'
        ) from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        request = actor_request(ray.cluster_resources(), workers)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"number": number} for number in numbers]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PartActor,
            fn_constructor_args=(job, plan),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(request.actors, len(rows))),
            **request.resources,
        )
        for row in done.iter_rows():
            if row["error"]:
                raise ValueError(row["error"])
            on_part(int(row["number"]))
    finally:
        if ours:
            ray.shutdown()
