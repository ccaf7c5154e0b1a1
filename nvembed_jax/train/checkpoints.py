"""Checkpoints of a run: the train state and where the data stands, written by Orbax beside the
training; a killed run leaves whole checkpoints only.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import uuid
from pathlib import Path
from typing import Any

import jax

from nvembed_jax.train.step import TrainState

_logger = logging.getLogger(__name__)
SPARE = 1.05  # a checkpoint's files are a little larger than its arrays


class Checkpoints:
    """The checkpoints in a folder, by global step.

    Args:
        folder: made if it is not there; leftovers of a killed writer are removed.
        keep: the newest are kept.
    """

    def __init__(self, folder: Path, keep: int):
        import orbax.checkpoint as ocp

        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(
        self, step: int, state: TrainState, facts: dict[str, Any], *, wait: bool = False
    ) -> None:
        """Starts to save; training may go on at once. An error of the last save is raised here.

        Args:
            facts: JSON-ready: stage, step in it, the data's state, fingerprints.

        Raises:
            OSError: the disk has no room; what was saved before is untouched.
        """
        import orbax.checkpoint as ocp

        self._check_room(state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),  # type: ignore[call-arg]
            facts=ocp.args.JsonSave(facts),  # type: ignore[call-arg]
        )
        with _explained(self.folder):
            self._manager.save(step, args=args, force=True)
            if wait:
                self._manager.wait_until_finished()

    def facts(self, step: int) -> dict[str, Any]:
        """What was saved beside the state."""
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(facts=ocp.args.JsonRestore())
        return dict(self._manager.restore(step, args=args)["facts"])

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state of `step`, on the devices and shardings of `abstract`, bit for bit.

        Raises:
            ValueError: it has other parameters or shapes.
        """
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))  # type: ignore[call-arg]
        return self._manager.restore(step, args=args)["state"]

    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, newest first; broken ones are named and put aside."""
        found = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                self.facts(step)
            except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
                aside = self.folder / f"broken-{step}-{uuid.uuid4().hex[:6]}"
                _logger.warning(
                    "%s: not readable (%s); now %s", self.folder / str(step), error, aside
                )
                if jax.process_index() == 0:
                    (self.folder / str(step)).rename(aside)
            else:
                found.append(step)
        self._manager.reload()
        return found

    def preempted(self, step: int) -> bool:
        """Whether the scheduler asked this job, on any host, to save and stop."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self) -> None:
        """Waits for the last save and raises its error."""
        with _explained(self.folder):
            self._manager.wait_until_finished()
            self._manager.close()

    def _check_room(self, state: TrainState) -> None:
        needed = int(SPARE * sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"a checkpoint needs {needed:,} bytes, {free:,} are free; the checkpoints written "
                "before are whole: make room and give the same command again",
                str(self.folder),
            )


class _explained:  # noqa: N801
    """Turns a failed write into one error that says what is still there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        full = error is not None and any(
            mark in str(error) for mark in ("No space left", "RESOURCE_EXHAUSTED", "Disk quota")
        )
        if full:
            raise OSError(
                errno.ENOSPC,
                "the disk is full; the checkpoints written before are whole: make room and give "
                "the same command again",
                str(self.folder),
            ) from error
