"""The run: stages in order, a step at a time, with checkpoints, metrics and exact resumption.

WORKDIR holds recipe.json, checkpoints/, metrics.jsonl and at the end model/, a loadable folder.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nvembed_jax.data.blend import Blend
from nvembed_jax.data.collate import Collator
from nvembed_jax.model import abstract_params
from nvembed_jax.runtime import enable_compilation_cache
from nvembed_jax.sharding import make_mesh
from nvembed_jax.train import saving
from nvembed_jax.train.checkpoints import Checkpoints
from nvembed_jax.train.feed import Feed, TextFeed
from nvembed_jax.train.memory import device_limit
from nvembed_jax.train.metrics import MetricsLog, Throughput
from nvembed_jax.train.program import Program
from nvembed_jax.train.recipe import Recipe, StageConfig
from nvembed_jax.train.start import Start, load_start
from nvembed_jax.train.teacher import Teacher
from nvembed_jax.train.workdir import MODEL, check_data, check_tokens, open_workdir

Say = Callable[[str], None]


@dataclass
class Outcome:
    """How a call of `train` ended.

    Attributes:
        model: the folder of the trained model; None: the run was stopped before its end.
        step: global steps done. resumed_from: the global step that this call began behind.
    """

    model: Path | None
    step: int
    resumed_from: int = 0


def train(
    recipe: Recipe,
    workdir: str | Path,
    *,
    devices: Sequence[Any] | None = None,
    say: Say | None = None,
    progress: bool | None = None,
) -> Outcome:
    """Runs a recipe to its end, or on from the last checkpoint in `workdir`.

    SIGTERM and SIGINT save a checkpoint after the step at work and end the call.

    Args:
        devices: the mesh is made of these; default: all there are.
        say: takes a line of report; default: standard error.
        progress: show a bar; None: where standard error is a terminal.

    Raises:
        ValueError: bad data (FILE:LINE), a recipe that differs from the one in `workdir`.
        MemoryError: the memory plan exceeds the device. OSError: no room to save.
        FloatingPointError: the loss is no longer finite.
    """
    enable_compilation_cache()
    say = say or _say
    workdir = Path(workdir)
    if open_workdir(workdir, recipe):
        done = sum(stage.steps for stage in recipe.stages.values())
        say(f"{workdir}: this run is finished; its model is {workdir / MODEL}")
        return Outcome(workdir / MODEL, done, done)
    mesh = make_mesh(**asdict(recipe.mesh), devices=devices)
    return _Run(recipe, workdir, mesh, say, progress).run()


class _Run:
    """One call of `train`."""

    def __init__(self, recipe: Recipe, workdir: Path, mesh: Any, say: Say, progress: bool | None):
        self.recipe, self.workdir, self.mesh = recipe, workdir, mesh
        self.say, self.progress = say, progress
        # All data is opened and checked before any work is done.
        self.blends = {
            name: Blend(stage, recipe.seed + number, cache_dir=workdir / "cache")
            for number, (name, stage) in enumerate(recipe.stages.items())
            if stage.steps
        }
        self.start: Start = load_start(recipe, self.mesh)
        self.teacher = self._teacher() if recipe.teacher else None
        self.checkpoints = Checkpoints(workdir / "checkpoints", recipe.keep)
        self.stop = threading.Event()
        self.step = 0

    def run(self) -> Outcome:
        """All stages, from the last checkpoint on."""
        self.step = resumed = next(iter(self.checkpoints.steps()), 0)
        if resumed:
            self.say(f"{self.workdir}: resumes behind step {resumed}")
        self.log = MetricsLog(self.workdir, resumed, self.recipe.tensorboard)
        trainable, before = self.start.trainable, 0
        self.start = self.start._replace(trainable=None)
        last: Any = None
        with _signals(self.stop):
            try:
                for name, blend in self.blends.items():
                    stage = self.recipe.stages[name]
                    if resumed < before + stage.steps or name == list(self.blends)[-1]:
                        last = self._stage(name, stage, blend, trainable, before)
                        trainable = last.trainable
                    elif resumed == before + stage.steps:
                        program = Program(self.recipe, stage, self.start.config, self.mesh)
                        trainable = self._restored(name, blend, program, trainable).trainable
                    before += stage.steps
                    if self.stop.is_set():
                        break
                self.checkpoints.close()
            finally:
                self.log.close()
        total = sum(stage.steps for stage in self.recipe.stages.values())
        if self.step < total:
            self.say(f"stopped at step {self.step} of {total}; the same command goes on from there")
            return Outcome(None, self.step, resumed)
        self._save_model(self.workdir / MODEL, trainable if last.ema is None else last.ema)
        self.say(f"wrote the model to {self.workdir / MODEL}")
        return Outcome(self.workdir / MODEL, self.step, resumed)

    def _stage(
        self, name: str, stage: StageConfig, blend: Blend, trainable: Any, before: int
    ) -> Any:
        program = Program(self.recipe, stage, self.start.config, self.mesh)
        self._show_plan(name, program, trainable)
        if self.step > before:
            state = self._restored(name, blend, program, trainable)
        else:
            state = program.init_state(trainable)
        feed = self._feed(stage, blend)
        check_tokens(feed.collated(0), self.start.tokenizer)
        self.facts = {
            "stage": name,
            "data": {"sampler": "pure", "seed": blend.seed, "fingerprint": blend.fingerprint},
            "start": self.start.fingerprint,
        }
        return self._loop(name, stage, program, feed, state, before)

    def _loop(
        self, name: str, stage: StageConfig, program: Program, feed: Feed, state: Any, before: int
    ) -> Any:
        report = _Report(self, name, stage, before)
        batches = feed.batches(self.step - before)
        for done in range(self.step - before + 1, stage.steps + 1):
            fed = next(batches)
            state, metrics = program(state, self.start.frozen, fed.batch)
            self.step = before + done
            report.add(done, metrics, fed.tokens)
            stopping = self.stop.is_set() or self.checkpoints.preempted(self.step)
            if stopping or done == stage.steps or self.step % self.recipe.checkpoint_every == 0:
                report.drain()
                self.log.flush()
                self._save(state, done, wait=stopping)
            if stopping:
                self.stop.set()
                break
        report.close()
        if self.recipe.save_stages and self.step == before + stage.steps:
            best = state.trainable if state.ema is None else state.ema
            self._save_model(self.workdir / "models" / name, best)
        return state

    def _teacher(self) -> Teacher:
        recipe = self.recipe
        cache = Path(recipe.teacher_cache) if recipe.teacher_cache else self.workdir / "cache"
        dtype = recipe.compute.resolve().dtype
        return Teacher(recipe.teacher, dtype=dtype, max_length=recipe.teacher_length, cache=cache)

    def _feed(self, stage: StageConfig, blend: Blend) -> Feed:
        collator = Collator(stage, self.start.tokenizer)
        if stage.objective == "causal_lm":
            return TextFeed(blend, collator, self.mesh)
        wanted = stage.loss.distill_cosine or stage.loss.distill_similarity
        wanted = wanted or (stage.loss.distill_scores and self.teacher is not None)
        if wanted and self.teacher is None:
            raise ValueError("this stage distils embeddings; give config.teacher, a model's folder")
        return Feed(blend, collator, self.mesh, self.teacher if wanted else None)

    def _restored(self, name: str, blend: Blend, program: Program, trainable: Any) -> Any:
        facts = self.checkpoints.facts(self.step)
        check_data(facts, name, blend.fingerprint, self.start.fingerprint, self.workdir)
        return self.checkpoints.restore(self.step, program.abstract_state(trainable))

    def _save(self, state: Any, done: int, *, wait: bool) -> None:
        if jax.default_backend() == "cpu":
            # On CPUs the writer would read the very buffers that the next step is given.
            state = jax.tree.map(lambda leaf: leaf.copy(), state)
        facts = {**self.facts, "stage_step": done}
        facts["data"] = {**facts["data"], "next_step": done}
        self.checkpoints.save(self.step, state, facts, wait=wait)

    def _save_model(self, folder: Path, trainable: Any) -> None:
        if (folder / "config.json").is_file():
            return
        saving.save_trained(folder, self.recipe, self.start, trainable)

    def _show_plan(self, name: str, program: Program, trainable: Any) -> None:
        state = program.abstract_state(trainable)
        plan = program.plan(state, self.start.frozen, device_limit())
        mesh = ", ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        self.say(f"{name}: memory plan of a device (mesh: {mesh})\n{plan.table()}")
        plan.check()


class _Report:
    """Lines of one stage: fetched one step behind, so that the devices never wait for them."""

    def __init__(self, run: _Run, name: str, stage: StageConfig, before: int):
        self.run, self.name, self.stage, self.before = run, name, stage, before
        names = list(run.recipe.stages)
        earlier = [run.recipe.stages[other] for other in names[: names.index(name)]]
        self.examples = sum(other.steps * other.batch_size for other in earlier)
        self.warned = False
        self.pending: list[tuple[int, Any, int]] = []
        full = run.recipe.trainable.lora is None
        params = abstract_params(run.start.config)
        self.rate = Throughput(run.start.config, params, full, run.recipe.peak_tflops)
        from tqdm.auto import tqdm

        self.bar = tqdm(
            total=stage.steps, initial=run.step - before, desc=name, unit="step",
            disable=None if run.progress is None else not run.progress, file=sys.stderr,
        )  # fmt: skip

    def add(self, done: int, metrics: Any, tokens: int) -> None:
        """Takes a step that was started; reports the one before it."""
        self.pending.append((done, metrics, tokens))
        if len(self.pending) > 1:
            self._write(*self.pending.pop(0))

    def drain(self) -> None:
        """Reports all that were started."""
        while self.pending:
            self._write(*self.pending.pop(0))

    def close(self) -> None:
        """Reports what is left."""
        self.drain()
        self.bar.close()

    def _write(self, done: int, metrics: Any, tokens: int) -> None:
        values = {key: float(value) for key, value in jax.device_get(metrics).items()}
        step = self.before + done
        if not np.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss of step {step} is {values['loss']}; the last checkpoint is from before "
                "it. Try a lower learning rate, or a higher temperature"
            )
        line = {"stage": self.name, "step": step, "stage_step": done, "loss": values.pop("loss")}
        line |= {
            "examples": self.examples + done * self.stage.batch_size,
            **self.rate.measure(tokens),
            **values,
        }
        self.run.log.write(line)
        if values.get("idle", 0.0) > 0 and not self.warned:
            self.warned = True
            self.run.say(
                f"{self.name}: {values['idle']:.0%} of the rows of step {step} have no negatives "
                "and teach nothing: mine some (nvembed mine), or allow in_batch ones"
            )
        self.bar.update()
        self.bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
        if self.bar.disable and (done % self.run.recipe.log_every == 0 or done == self.stage.steps):
            self.run.say(
                f"{self.name} step {done}/{self.stage.steps}  loss {line['loss']:.4f}  "
                f"{line['tokens_per_s']:,.0f} tokens/s"
            )


class _signals:  # noqa: N801
    """SIGTERM and SIGINT ask for a stop; a second SIGINT interrupts at once."""

    def __init__(self, stop: threading.Event):
        self.stop, self.before = stop, {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._asked)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, _: Any) -> None:
        if self.stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop.set()


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The lines of WORKDIR/metrics.jsonl."""
    lines = (Path(workdir) / "metrics.jsonl").read_text("utf8").splitlines()
    return [json.loads(line) for line in lines]
