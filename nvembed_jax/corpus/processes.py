"""Parts of a corpus by several processes on one machine, one a GPU where there are any.

The driver hands out numbers of parts; what a killed worker had goes to the one that takes its
place. Workers end with their driver.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from nvembed_jax.corpus.manifest import Plan
from nvembed_jax.corpus.parts import CorpusJob, PartEncoder
from nvembed_jax.corpus.progress import Progress

MOST_DEATHS = 12  # of workers in a row, without a part finished between them


class Slot(NamedTuple):
    """What a worker has to itself: environment variables, and cores (empty: all of them)."""

    environment: dict[str, str]
    cores: tuple[int, ...]


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """Names of the GPUs that JAX would see, without starting JAX, which would take their memory."""
    if environment.get("JAX_PLATFORMS", "").lower() == "cpu":
        return []
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        chosen = [name.strip() for name in named.split(",")]
        return [name for name in chosen if name not in ("", "-1")]
    return [str(number) for number in range(len(list(devices.glob("nvidia[0-9]*"))))]


def make_slots(workers: int, gpus: list[str], cores: list[int]) -> list[Slot]:
    """A GPU a worker where there are GPUs, else an equal share of the cores, at least one.

    Raises:
        ValueError: more workers than GPUs.
    """
    if gpus:
        if workers > len(gpus):
            raise ValueError(
                f"{workers} workers for {len(gpus)} GPUs; each takes a whole one: ask for at most "
                f"{len(gpus)}"
            )
        return [Slot({"CUDA_VISIBLE_DEVICES": gpu}, ()) for gpu in gpus[:workers]]
    each = max(len(cores) // workers, 1)
    shares = [cores[i : i + each] for i in range(0, len(cores) - each + 1, each)]
    return [Slot({}, tuple(shares[i % len(shares)])) for i in range(workers)]


class _Worker(NamedTuple):
    slot: Slot
    process: Any
    pipe: Connection


class ProcessPool:
    """Workers for one job; `run` it once.

    Args:
        say: hears of workers that were killed.
    """

    def __init__(
        self, job: CorpusJob, plan: Plan, slots: list[Slot], say: Callable[[str], Any]
    ) -> None:
        self._job, self._plan, self._slots, self._say = job, plan, slots, say
        self._context = multiprocessing.get_context("spawn")
        self._queue: deque[int] | None = None  # known when the manifest has been compared
        self._held: dict[Connection, int] = {}  # parts being encoded
        self._told: dict[Connection, int] = {}  # texts of them that were counted
        self._deaths = 0

    def run(self, make_progress: Callable[[list[int]], Progress]) -> int:
        """Encodes what is pending; returns the number of texts.

        Args:
            make_progress: called with the numbers of the parts that are pending.

        Raises:
            Whatever a worker raised. ChildProcessError: workers were killed again and again.
        """
        workers = {worker.pipe: worker for worker in map(self._start, self._slots)}
        progress: Progress | None = None
        try:
            while workers:
                for pipe in list(wait(list(workers))):
                    assert isinstance(pipe, Connection)
                    try:
                        kind, value = pipe.recv()
                    except (EOFError, OSError, pickle.UnpicklingError):
                        worker = self._replacement(workers.pop(pipe), progress)
                        workers[worker.pipe] = worker
                        continue
                    if kind == "failed":
                        raise value
                    if self._queue is None:
                        self._queue = deque(self._job.pending(self._plan))
                        progress = make_progress(list(self._queue))
                    assert progress is not None
                    if self._heard(pipe, kind, value, progress):
                        workers.pop(pipe).process.join()
            return 0 if progress is None else progress.made
        finally:
            for worker in workers.values():
                worker.process.terminate()
                worker.process.join()
            if progress is not None:
                progress.close()

    def _heard(self, pipe: Connection, kind: str, value: Any, progress: Progress) -> bool:
        """Answers a message; whether the worker was told to stop."""
        if kind == "texts":
            self._told[pipe] = self._told.get(pipe, 0) + value
            progress.add(value)
            return False
        if kind == "done":
            self._deaths = 0
            self._held.pop(pipe)
            self._told.pop(pipe, None)
        number = self._queue.popleft() if self._queue else None
        if number is not None:
            self._held[pipe] = number
        try:
            pipe.send(number)
        except OSError:
            return False  # killed just now: the end of its pipe is heard next
        return number is None

    def _start(self, slot: Slot) -> _Worker:
        pipe, other = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(self._job, self._plan, other, slot), daemon=True
        )
        process.start()
        other.close()
        return _Worker(slot, process, pipe)

    def _replacement(self, worker: _Worker, progress: Progress | None) -> _Worker:
        """A new worker in the place of one that died; its part is the next to be handed out."""
        worker.process.join()
        worker.pipe.close()
        number = self._held.pop(worker.pipe, None)
        told = self._told.pop(worker.pipe, 0)
        if number is not None:
            assert self._queue is not None
            self._queue.appendleft(number)
        if progress is not None:
            progress.add(-told)
        self._deaths += 1
        where = "while it loaded" if number is None else f"at {self._plan.parts[number].name}"
        how = _cause(worker.process.exitcode)
        if self._deaths >= MOST_DEATHS:
            raise ChildProcessError(
                f"workers ended {self._deaths} times in a row, the last ({how}) {where}: too "
                f"little memory? Use fewer workers or smaller batches; finished parts are kept"
            )
        self._say(f"a worker ended ({how}) {where}; another one takes its place")
        return self._start(worker.slot)


def _cause(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _work(job: CorpusJob, plan: Plan, pipe: Connection, slot: Slot) -> None:
    """What a worker does until it is told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears it, and stops the workers
    os.environ.update(slot.environment)
    if slot.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, slot.cores)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    try:
        encoder = PartEncoder(job, plan)
        pipe.send(("ready", None))
        while (number := pipe.recv()) is not None:
            encoder.encode(number, lambda texts: pipe.send(("texts", texts)))
            pipe.send(("done", number))
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:
        pipe.send(("failed", _portable(error)))


def _end_with_driver() -> None:
    """Ends this process when its driver is gone, however that ended: it would keep the GPU."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or one with its text where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
