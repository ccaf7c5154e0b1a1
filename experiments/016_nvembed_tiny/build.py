"""nvembed-tiny from public sets to shipped weights; the same command goes on where it was stopped.

    python experiments/016_nvembed_tiny/build.py --work DIR [--data FOLDER]

Without --data the sets are read as `python -m nvembed_jax.data.tfds build` leaves them; FOLDER has
one folder a set, in the task layout (docs/data.md), and the evaluation sets that the training texts
are cleaned of. Every step leaves its result in DIR under its name:

    sets/       rows of each set, without texts of evaluation sets
    tokenizer/  24,000 pieces, learned from them
    teacher/    all-MiniLM-L6-v2, its embeddings turned to their principal axes
    start/      a token table from the teacher under blocks that are the identity
    distill/    the run of configs/nvembed_tiny_distill.py
    mined/      the rows with hard negatives
    stages/     the run of configs/nvembed_tiny.py; stages/model is the model
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax import Embedder
from nvembed_jax.checkpoint.saving import save_model
from nvembed_jax.compress import static_start
from nvembed_jax.data.examples import Example, example_to_json, read_examples
from nvembed_jax.data.row_file import row_writer
from nvembed_jax.data.sources import open_source
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.text.tokenizer_training import train_tokenizer
from nvembed_jax.train.config_file import load_config
from nvembed_jax.train.recipe import parse_recipe
from nvembed_jax.train.start import resolve_config

CONFIGS = Path(__file__).parents[2] / "configs"
DISTILL, STAGES = CONFIGS / "nvembed_tiny_distill.py", CONFIGS / "nvembed_tiny.py"
CAP = 40_000  # rows of a set, at most
AXES_TEXTS = 20_000  # that the teacher's axes are taken from
SEED = 0


def nvembed(*arguments: Any) -> None:
    """One command of the package."""
    print("nvembed", *arguments, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "nvembed_jax", *map(str, arguments)], check=True)


def set_names() -> tuple[list[str], list[str]]:
    """(sets of pairs, sets with labels) that the recipes draw from."""
    stages = load_config(STAGES)
    pairs, every = (set(stages[name].sources) for name in ("stage1", "stage2"))
    return sorted(pairs), sorted(every - pairs)


def make_sets(work: Path, data: Path | None) -> None:
    """At most CAP random rows a set, less those that stand in an evaluation set."""
    folder, every = work / "sets", work / "every.jsonl.gz"
    pairs, labelled = set_names()
    if folder.exists():
        return
    if not every.exists():
        with row_writer(every) as write:
            for name in pairs:
                source = open_source(str(data / name) if data else f"tfds:{name}")
                rows = random.Random(SEED).sample(range(len(source)), min(CAP, len(source)))
                rng = np.random.default_rng(SEED)
                for row in sorted(rows):
                    write({**example_to_json(source.get(row, rng)), "source": name})
    clean = work / "clean.jsonl.gz"
    if not clean.exists():
        against = [path.parent for path in sorted(data.glob("*/task.json"))] if data else []
        folders = [part for path in against for part in ("--against", path)]
        nvembed("decontaminate", every, *folders, "--methods", "exact,minhash", "-o", clean)
    by_set: dict[str, list[Example]] = {}
    for example in read_examples(clean):
        by_set.setdefault(example.source or "", []).append(example)
    partial = work / "sets.part"
    partial.mkdir(exist_ok=True)
    for name, examples in by_set.items():
        with row_writer(partial / f"{name}.jsonl.gz") as write:
            for example in examples:
                write(example_to_json(example))
    for name in labelled if data else ():
        (partial / name).symlink_to((data / name).resolve())
    partial.rename(folder)


def texts_of(folder: Path) -> Iterator[str]:
    """All texts of the sets, in order."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        for example in read_examples(path):
            yield from (example.query, *example.positives, *example.negatives)


def make_tokenizer(work: Path, vocab_size: int) -> None:
    """Learns the vocabulary."""
    folder = work / "tokenizer"
    if (folder / "tokenizer.json").exists():
        return
    folder.mkdir(exist_ok=True)
    files = train_tokenizer(texts_of(work / "sets"), vocab_size)
    for name, content in sorted(files.items()):
        (folder / name).write_bytes(content)


def make_start(work: Path, teacher: str | None) -> None:
    """The teacher along its axes, and the start."""
    recipe = parse_recipe(
        load_config(DISTILL, {"model.path": "", "model.tokenizer": str(work / "tokenizer")})
    )
    config, _ = resolve_config(recipe)
    if (work / "start" / "config.json").exists():
        return
    model = Embedder.from_pretrained(teacher)
    texts = list(texts_of(work / "sets"))
    sample = random.Random(SEED).sample(texts, min(AXES_TEXTS, len(texts)))
    axes = static_start.sample_axes(model, sample, config.embed_dim)
    if not (work / "teacher" / "config.json").exists():
        static_start.save_rotated(teacher, axes, work / "teacher")
    tokenizer = Tokenizer.from_folder(work / "tokenizer", config.text)
    params = static_start.static_start(config, tokenizer, model, axes, texts, SEED)
    save_model(work / "start", config, params, src_folder=work / "tokenizer")


def make_mined(work: Path, dtype: str) -> None:
    """Hard negatives of the teacher for the sets that bring none; four a row."""
    (work / "mined").mkdir(exist_ok=True)
    for path in sorted((work / "sets").iterdir()):
        done = work / "mined" / path.name
        if done.exists():
            continue
        if path.is_dir() or any(example.negatives for example in read_examples(path)):
            done.symlink_to(path.resolve())
        else:
            options = ("-m", work / "teacher", "-n", 4, "--max-length", 128, "--dtype", dtype)
            nvembed("mine", path, "-o", done, *options)


def run(config: Path, sets: Path, workdir: Path, start: Path, work: Path, dtype: str) -> None:
    """Trains, or goes on."""
    values = {"model.path": start, "teacher": work / "teacher", "compute.dtype": dtype}
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    nvembed("train", "--config", f"{config}:{sets}", "--workdir", workdir, *overrides)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--data", type=Path, help="folder of sets; default: as built by TFDS")
    parser.add_argument("--teacher", default=None, help="default: the bundled all-MiniLM-L6-v2")
    parser.add_argument("--dtype", default="bfloat16", help="of training and mining")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    work = args.work.resolve()
    make_sets(work, args.data)
    vocab_size = load_config(DISTILL).model.overrides.backbone.vocab_size
    make_tokenizer(work, vocab_size)
    make_start(work, args.teacher)
    run(DISTILL, work / "sets", work / "distill", work / "start", work, args.dtype)
    make_mined(work, args.dtype)
    run(STAGES, work / "mined", work / "stages", work / "distill" / "model", work, args.dtype)
    print(f"the model: {work / 'stages' / 'model'}")


if __name__ == "__main__":
    main()
