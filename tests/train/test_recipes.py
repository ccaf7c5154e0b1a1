"""Every recipe in configs/ loads, plans its memory at full size, and trains when made small."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from recipe_data import CONFIGS, FILES, VARIANTS, small, without_checkpoint, write_pairs

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import store
from nvembed_jax.data.tfds.registry import all_sets
from nvembed_jax.model import abstract_params
from nvembed_jax.train import trainer
from nvembed_jax.train.config_file import load_config
from nvembed_jax.train.planning import plan_stages, recipe_plans
from nvembed_jax.train.recipe import parse_recipe
from nvembed_jax.train.start import resolve_config

PARTS = ("Source", "Known", "Assumed", "Hardware", "Expected")
LABELLED = ("classification", "clustering")  # they draw negatives from other classes
DEVICE = 80 * 10**9  # bytes of the accelerators that the headers name
PUBLISHED = {
    "nv_embed_v1.py": 7_851_016_192,
    "nv_embed_v2.py": 7_851_016_192,
    "nv_embed_reversed.py": 7_851_016_192,
    "nv_embed_single_stage.py": 7_851_016_192,
    "e5_mistral_7b.py": 7_110_660_096,
    "sfr_embedding_mistral.py": 7_110_660_096,
    "sfr_embedding_2r.py": 7_110_660_096,
    "linq_embed_mistral.py": 7_110_660_096,
    "nv_embedqa_mistral_7b_v2.py": 7_110_660_096,
    "nv_embedqa_e5_v5.py": 334_092_288,
}


def header(file: str) -> str:
    return ast.get_docstring(ast.parse((CONFIGS / file).read_text("utf8"))) or ""


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Recipes whose small runs compute the same share their programs."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function: file of a recipe -> workdir of its small run, on one device."""
    root, done = tmp_path_factory.mktemp("runs"), {}
    data = write_pairs(root / "pairs.jsonl")

    def run(file: str) -> Path:
        if file in done:
            return done[file]
        config = small(file, data)
        if file == "tiny_two_stage.py":  # starts from the pretrained decoder, as it says
            config.model.update({"path": str(run("tiny_causal_lm.py") / "model"), "tokenizer": ""})
        if config.get("teacher"):
            config.teacher = str(run("nv_embed_v2.py") / "model")
        done[file] = root / file.removesuffix(".py")
        one = jax.devices()[:1]
        trainer.train(
            parse_recipe(config), done[file], devices=one, say=lambda _: None, progress=False
        )
        return done[file]

    return run


@pytest.mark.parametrize("file", FILES)
def test_header_says_what_a_recipe_is(file: str):
    text = header(file)
    for part in PARTS:
        assert re.search(rf"^{part}: \S", text, re.M), f"{file}: no {part}"
    assert re.search(rf"^ +nvembed train --config configs/{re.escape(file)}", text, re.M)
    assert re.search(r"\d (h|min)\b", text), "hours"


@pytest.mark.parametrize("file", [*FILES, *VARIANTS])
def test_recipe_plans_memory_at_full_size(file: str):
    recipe = parse_recipe(without_checkpoint(file))
    config, _ = resolve_config(recipe)
    if file in PUBLISHED:
        params = abstract_params(config)
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED[file]
    plans = plan_stages(recipe, devices=8)
    assert list(plans) == list(recipe.stages)
    assert all(0 < plan.total < DEVICE for plan in plans.values())
    for name, text in zip(plans, recipe_plans(recipe, devices=8), strict=True):
        assert f"{recipe.name}, {name}" in text
        assert "total" in text


@pytest.mark.parametrize("file", FILES)
def test_recipe_trains_two_steps_made_small(file: str, trained):
    workdir = trained(file)
    lines = trainer.read_metrics(workdir)
    recipe = parse_recipe(without_checkpoint(file))
    assert [line["stage"] for line in lines] == [name for name in recipe.stages for _ in range(2)]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(math.isfinite(line["loss"]) for line in lines)
    model, asked = Embedder.from_pretrained(workdir / "model"), resolve_config(recipe)[0]
    assert model.embed_dim == 32
    assert (model.config.attention, model.config.pooling) == (asked.attention, asked.pooling)
    assert model.config.text == asked.text


def test_two_stage_start_is_the_pretrained_decoder(trained):
    start = store.load_config(trained("tiny_causal_lm.py") / "model")
    end = store.load_config(trained("tiny_two_stage.py") / "model")
    assert start.backbone == end.backbone
    assert (start.attention, start.pooling) == ("causal", "eos")
    assert (end.attention, end.pooling) == ("bidirectional", "latent")


def test_reversed_recipe_runs_stage_two_first(trained):
    lines = trainer.read_metrics(trained("nv_embed_reversed.py"))
    assert [line["stage"] for line in lines] == ["stage2", "stage2", "stage1", "stage1"]


def test_single_stage_variants_differ_in_the_in_batch_negatives():
    def stage(argument: str):
        recipe = parse_recipe(without_checkpoint(f"nv_embed_single_stage.py:{argument}"))
        return recipe.stages["stage1"]

    on, off = stage("on"), stage("off")
    assert (on.in_batch, on.loss.in_batch) == (True, True)
    assert (off.in_batch, off.loss.in_batch) == (False, False)
    assert (on.steps, on.sources) == (off.steps, off.sources)
    with pytest.raises(ValueError, match=r"single_stage\.py:on or :off, got 'maybe'"):
        load_config(f"{CONFIGS}/nv_embed_single_stage.py:maybe")


@pytest.mark.parametrize("file", [name for name in FILES if "tiny" not in name])
def test_sources_are_sets_as_built_or_mined_files(file: str):
    chosen = {"nv_embed_single_stage.py": "off,", "gte.py": "base,"}.get(file, "")
    mined = load_config(f"{CONFIGS}/{file}:{chosen}mined/examples")
    built = load_config(CONFIGS / file)
    for name in built.stages:
        assert all(s.data == f"tfds:{key}" for key, s in built[name].sources.items())
        assert set(built[name].sources) <= set(mined[name].sources)
    for key, source in mined[mined.stages[-1]].sources.items():
        places = (f"mined/examples/{key}.jsonl.gz", f"tfds:{key}")
        assert source.data == places[key in all_sets() and all_sets()[key].kind in LABELLED]


def test_sources_have_builders():
    wanted = {
        source.data.removeprefix("tfds:")
        for file in FILES
        for stage in parse_recipe(without_checkpoint(file)).stages.values()
        for source in stage.sources.values()
    }
    assert wanted
    assert wanted <= set(all_sets())


def test_unknown_key_of_a_recipe_names_the_nearest():
    config = without_checkpoint("nv_embed_v2.py")
    config.stage1.batchsize = 64
    with pytest.raises(ValueError, match=r"stage1: .*'batchsize'.*did you mean 'batch_size'"):
        parse_recipe(config)
    with pytest.raises(ValueError, match=r"'stage1\.losss\.temperature'; did you mean"):
        load_config(CONFIGS / "nv_embed_v2.py", {"stage1.losss.temperature": "0.1"})


def test_override_adds_a_key_that_the_config_leaves_out():
    overrides = {"compute.dtype": "bfloat16", "stage1.loss.symmetric": "true",
                 "stage1.sources.til.limit": "5"}  # fmt: skip
    recipe = parse_recipe(load_config(CONFIGS / "tiny_causal_lm.py", overrides))
    assert recipe.compute.dtype == "bfloat16"
    assert recipe.stages["stage1"].loss.symmetric
    assert recipe.stages["stage1"].sources["til"].limit == 5


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("compute.dtpe", "did you mean compute.dtype"),
        ("compute", "holds several values; set one of compute.dtype"),
        ("stage1.los.symmetric", "did you mean stage1.loss"),
        ("stage1.sources.tils.limit", r"did you mean stage1.sources.til"),
        ("seed.x", "unknown config key 'seed.x'"),
    ],
)
def test_override_of_an_unknown_key_names_the_nearest(key: str, answer: str):
    with pytest.raises(ValueError, match=answer):
        load_config(CONFIGS / "tiny_causal_lm.py", {key: "1"})


def test_options_of_the_tiny_recipe_are_the_documented_ones():
    overrides = {
        "stage1.data": "a.jsonl",
        "stage2.data": "b.jsonl",
        "stage1.steps": "3",
        "stage2.steps": "4",
        "checkpoint_every": "2",
        "seed": "7",
    }
    recipe = parse_recipe(load_config(CONFIGS / "tiny_cpu.py", overrides))
    assert [stage.data for stage in recipe.stages.values()] == ["a.jsonl", "b.jsonl"]
    assert [stage.steps for stage in recipe.stages.values()] == [3, 4]
    assert (recipe.checkpoint_every, recipe.seed) == (2, 7)


def test_readme_lists_exactly_the_recipes():
    rows = re.findall(
        r"^\| \[`(\w+\.py)`\]\((\w+\.py)\)", (CONFIGS / "README.md").read_text(), re.M
    )
    assert [name for name, _ in rows] == [link for _, link in rows]
    assert sorted(name for name, _ in rows) == FILES
