"""nvembed-tiny from public sets to shipped weights; the same command goes on where it was stopped.

    python experiments/016_nvembed_tiny/build.py --work DIR [--data FOLDER]

Without --data the sets are read as `python -m nvembed_jax.data.tfds build` leaves them; FOLDER has
one folder a set, in the task layout (docs/data.md), and the evaluation sets that the training texts
are cleaned of. Every step leaves its result in DIR under its name:

    sets/       rows of each set, without texts of evaluation sets
    tokenizer/  the pieces of the teacher's vocabulary that their texts use most
    teacher/    all-MiniLM-L6-v2, its embeddings turned to their principal axes
    labels/     the teacher's embeddings of all texts
    table/      a token table made from the teacher's last layer
    static/     the run of configs/nvembed_tiny_static.py: the table, trained
    start/      that table under blocks that are the identity
    distill/    the run of configs/nvembed_tiny_distill.py
    mined/      the rows with hard negatives
    stages/     the run of configs/nvembed_tiny.py
    nvembed-tiny/  its model with bfloat16 weights: what bundle.py puts into the package
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tqdm import tqdm

from nvembed_jax import Embedder
from nvembed_jax.checkpoint.saving import save_model
from nvembed_jax.checkpoint.store import load_config as load_model_config
from nvembed_jax.checkpoint.store import load_params
from nvembed_jax.compress import static_start
from nvembed_jax.config import ModelConfig
from nvembed_jax.data.examples import Example, example_to_json, read_examples
from nvembed_jax.data.row_file import row_writer
from nvembed_jax.data.sources import open_source
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.text.word_pieces import prune_word_pieces
from nvembed_jax.train.config_file import load_config
from nvembed_jax.train.recipe import parse_recipe
from nvembed_jax.train.start import resolve_config
from nvembed_jax.train.teacher import Teacher

CONFIGS = Path(__file__).parents[2] / "configs"
STATIC, DISTILL, STAGES = (
    CONFIGS / f"nvembed_tiny{part}.py" for part in ("_static", "_distill", "")
)
CAP = 110_000  # rows of a set, at most
AXES_TEXTS = 20_000  # that the teacher's axes are taken from
LABELLED = 4096  # texts that the teacher embeds at a time
SEED = 0
DTYPE = "bfloat16"  # of labelling, training and mining
Changes = Mapping[str, str]  # of a recipe's values, by dotted name
NONE: Changes = MappingProxyType({})
TEACHER = "sentence-transformers/all-MiniLM-L6-v2"


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
                    example = replace(source.get(row, rng), task=None)
                    write({**example_to_json(example), "source": name})
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


def make_tokenizer(work: Path, teacher: str, config: Path, changes: Changes = NONE) -> None:
    """The teacher's vocabulary, cut to what the texts use most."""
    folder = work / "tokenizer"
    if (folder / "tokenizer.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = load_config(config, changes).model.overrides.backbone.vocab_size
    whole = Embedder.from_pretrained(teacher).tokenizer
    counts = static_start.piece_counts(whole, texts_of(work / "sets"))
    files = prune_word_pieces(whole.backend, counts, vocab_size)
    for name, content in sorted(files.items()):
        (folder / name).write_bytes(content)


def make_teacher(work: Path, teacher: str) -> None:
    """The teacher along its axes."""
    if (work / "teacher" / "config.json").exists():
        return
    model = Embedder.from_pretrained(teacher)
    texts = list(texts_of(work / "sets"))
    sample = random.Random(SEED).sample(texts, min(AXES_TEXTS, len(texts)))
    axes = static_start.sample_axes(model, sample, config_of(STATIC, work).embed_dim)
    static_start.save_rotated(teacher, axes, work / "teacher")


def config_of(config: Path, work: Path, changes: Changes = NONE) -> ModelConfig:
    """The model of a recipe."""
    places = {"model.path": "", "model.tokenizer": str(work / "tokenizer"), **changes}
    return resolve_config(parse_recipe(load_config(config, places)))[0]


def make_table(work: Path, config: Path, changes: Changes = NONE) -> None:
    """A static embedder, untrained."""
    if (work / "table" / "config.json").exists():
        return
    model_config = config_of(config, work, changes)
    teacher = Embedder.from_pretrained(work / "teacher")
    tokenizer = Tokenizer.from_folder(work / "tokenizer", model_config.text)
    axes = np.eye(teacher.config.embed_dim, dtype=np.float32)
    texts = texts_of(work / "sets")
    params = static_start.static_start(model_config, tokenizer, teacher, axes, texts, SEED)
    save_model(work / "table", model_config, params, src_folder=work / "tokenizer")


def make_start(work: Path) -> None:
    """The trained table under blocks that are the identity."""
    if (work / "start" / "config.json").exists():
        return
    source, config = work / "static" / "model", config_of(DISTILL, work)
    static = load_params(source, load_model_config(source))
    params = static_start.grown(config, static["backbone"], SEED)
    save_model(work / "start", config, params, src_folder=work / "tokenizer")


def make_labels(work: Path) -> None:
    """The teacher's embeddings of all texts, where the runs look for them."""
    recipe = load_config(DISTILL)
    done = work / "labels" / "done"
    if done.exists():
        return
    teacher = Teacher(
        str(work / "teacher"),
        dtype=DTYPE,
        max_length=recipe.teacher_length,
        cache=work / "labels",
    )
    texts = sorted(set(texts_of(work / "sets")))
    random.Random(SEED).shuffle(texts)
    for first in tqdm(range(0, len(texts), LABELLED), desc="labelling", unit_scale=LABELLED):
        block = texts[first : first + LABELLED]
        teacher([""] * len(block), block)
    done.touch()


def make_mined(work: Path) -> None:
    """Hard negatives of the distilled model for the sets that bring none; four a row."""
    (work / "mined").mkdir(exist_ok=True)
    for path in sorted((work / "sets").iterdir()):
        done = work / "mined" / path.name
        if done.exists():
            continue
        if path.is_dir() or any(example.negatives for example in read_examples(path)):
            done.symlink_to(path.resolve())
        else:
            model = work / "distill" / "model"
            options = ("-m", model, "-n", 4, "--max-length", 64, "--dtype", DTYPE)
            nvembed("mine", path, "-o", done, *options)


def make_shipped(work: Path) -> None:
    """The trained model in half the bytes."""
    if (work / "nvembed-tiny" / "config.json").exists():
        return
    trained = work / "stages" / "model"
    config = load_model_config(trained)
    params = load_params(trained, config)
    save_model(work / "nvembed-tiny", config, params, src_folder=trained, dtype=DTYPE)


def overrides(work: Path, start: Path, changes: Changes = NONE) -> list[str]:
    """Options of `nvembed train`: where the run finds what was made for it."""
    values = {
        "model.path": start,
        "teacher": work / "teacher",
        "teacher_cache": work / "labels",
        "compute.dtype": DTYPE,
        **changes,
    }
    return [f"--config.{key}={value}" for key, value in values.items()]


def run(
    config: Path, sets: Path, workdir: Path, start: Path, work: Path, changes: Changes = NONE
) -> None:
    """Trains, or goes on."""
    options = overrides(work, start, changes)
    nvembed("train", "--config", f"{config}:{sets}", "--workdir", workdir, *options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--data", type=Path, help="folder of sets; default: as built by TFDS")
    parser.add_argument("--teacher", default=TEACHER, help="default: %(default)s")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    work = args.work.resolve()
    make_sets(work, args.data)
    make_tokenizer(work, args.teacher, DISTILL)
    make_teacher(work, args.teacher)
    make_labels(work)
    make_table(work, STATIC)
    run(STATIC, work / "sets", work / "static", work / "table", work)
    make_start(work)
    run(DISTILL, work / "sets", work / "distill", work / "start", work)
    make_mined(work)
    run(STAGES, work / "mined", work / "stages", work / "distill" / "model", work)
    make_shipped(work)
    print(f"the model: {work / 'nvembed-tiny'}")


if __name__ == "__main__":
    main()
