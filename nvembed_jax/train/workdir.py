"""The folder of a run: which recipe it is of, and whether its data are still the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from nvembed_jax.data.collate import Collated
from nvembed_jax.data.writers import write_text
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.train.recipe import RESUMABLE, Recipe, parse_recipe, recipe_to_dict
from nvembed_jax.version import __version__

MODEL = "model"
RECIPE = "recipe.json"
_SHOWN = 5


def open_workdir(workdir: Path, recipe: Recipe) -> bool:
    """Makes the folder or checks that it is of this recipe; whether the run is finished.

    Raises:
        ValueError: it is of another recipe; what differs is named.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / RECIPE
    mine = _plain(recipe)
    if not file.exists():
        if jax.process_index() == 0:
            write_text(file, json.dumps({"version": __version__, **mine}, indent=1) + "\n")
        return False
    theirs = _plain(_read(file))
    changes = [
        f"{key}: {old!r} there, {new!r} asked for"
        for key, old, new in differences(theirs, mine)
        if key.split(".")[0] not in RESUMABLE
    ]
    if changes:
        more = f", and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise ValueError(
            f"{workdir} holds a run of another config: {'; '.join(changes[:_SHOWN])}{more}. "
            "Give another --workdir, or the config that it was started with"
        )
    return (workdir / MODEL / "config.json").is_file()


def _read(file: Path) -> Recipe:
    """The recipe of a run; keys that its version did not have yet are at their defaults."""
    written = json.loads(file.read_text("utf8"))
    written.pop("version", None)
    stages = written.pop("stages")
    return parse_recipe({**written, **stages, "stages": tuple(stages)})


def _plain(recipe: Recipe) -> dict[str, Any]:
    return json.loads(json.dumps(recipe_to_dict(recipe)))


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, value in a, value in b) wherever two nested dicts differ."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [] if a == b else [(prefix.removesuffix("."), a, b)]
    out = []
    for key in sorted(a.keys() | b.keys()):
        out += differences(a.get(key), b.get(key), f"{prefix}{key}.")
    return out


def check_data(facts: Mapping[str, Any], stage: str, data: str, start: str, workdir: Path) -> None:
    """Raises ValueError where a checkpoint's stage, data or start weights are not this run's."""
    found = {"stage": facts["stage"], "data": facts["data"]["fingerprint"], "start": facts["start"]}
    asked = {"stage": stage, "data": data, "start": start}
    what = {
        "stage": "the stage",
        "data": "the training data (its content, order or weights)",
        "start": "the start weights or the tokenizer",
    }
    changed = [what[key] for key in found if found[key] != asked[key]]
    if changed:
        raise ValueError(
            f"{workdir}: {' and '.join(changed)} changed since the checkpoint was written; a run "
            "goes on only with the same. Put them back, or begin in another --workdir"
        )


def check_tokens(batch: Collated, tokenizer: Tokenizer) -> None:
    """Raises ValueError if texts do not end in EOS, where the model closes them with it."""
    if not tokenizer.text.add_eos:
        return
    for encoded in [*batch.queries, *(e for row in batch.passages for e in row)]:
        if encoded.input_ids[-1] != tokenizer.eos_id:
            raise ValueError(
                f"a tokenised text ends in token {encoded.input_ids[-1]}, not in EOS "
                f"({tokenizer.eos_id}): the tokenizer does not fit this model"
            )
