"""`nvembed info` and `nvembed convert`."""

from __future__ import annotations

import json
import os
from functools import partial

import jax
import numpy as np
import pytest

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import load_params
from nvembed_jax.model import fold_latents, init_params


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_info_counts_parameters_and_memory(nvembed, model_folder, tiny_config):
    facts = json.loads(nvembed("info", model_folder, "--json").out)
    params = init_params(tiny_config, jax.random.key(0))
    folded = count(jax.eval_shape(partial(fold_latents, tiny_config), params))
    parameters = count(params)
    assert facts["parameters"] == parameters
    assert facts["parameters_folded"] == folded
    assert facts["weights_bytes"] == {
        "float32": 4 * parameters,
        "bfloat16": 2 * parameters,
        "int8": parameters,
    }
    assert facts["weights_bytes_folded"]["bfloat16"] == 2 * folded
    assert (facts["family"], facts["pooling"], facts["attention"]) == (
        "nvembed",
        "latent",
        "bidirectional",
    )
    assert (facts["embed_dim"], facts["dtype"], facts["num_layers"]) == (64, "float32", 1)
    assert facts["text"]["query_template"] == "Instruct: {task}\nQuery: "


def test_info_for_people_is_one_fact_a_line(nvembed, model_folder):
    result = nvembed("info", model_folder)
    assert (result.code, result.err) == (0, "")
    lines = dict(line.split("  ", 1) for line in result.out.splitlines())
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    assert facts["pooling"] == "latent"
    assert facts["query template"] == r"'Instruct: {task}\nQuery: '"
    assert "MiB as float32" in facts["memory"]


def test_info_of_the_full_size_model_needs_no_weights():
    from nvembed_jax.checkpoint import expected_shapes
    from nvembed_jax.cli.info import _folded_away
    from nvembed_jax.config import nv_embed_v2

    config = nv_embed_v2()
    total = sum(int(np.prod(shape)) for shape in expected_shapes(config).values())
    assert total == 7_851_016_192
    assert round(_folded_away(config) / 1e6) == 505


def test_info_of_no_model_is_one_line(nvembed, one_error, tmp_path):
    assert "nowhere" in one_error(nvembed("info", "./nowhere"), 1)
    (tmp_path / "config.json").write_text('{"model_type": "whale"}')
    assert "whale" in one_error(nvembed("info", tmp_path), 1)


@pytest.fixture(scope="module")
def published(model_folder, tmp_path_factory):
    from nvembed_jax.checkpoint import export_checkpoint

    folder = tmp_path_factory.mktemp("published") / "torch"
    export_checkpoint(model_folder, folder)
    return folder


def test_convert_goes_there_and_back(nvembed, tmp_path, model_folder, published):
    result = nvembed("convert", published, tmp_path / "jax")
    assert (result.code, result.out) == (0, "")
    assert result.err == f"nvembed: wrote {tmp_path / 'jax'}\n"
    ours, given = (load_params(folder) for folder in (tmp_path / "jax", model_folder))
    jax.tree.map(np.testing.assert_array_equal, ours, given)
    result = nvembed("convert", tmp_path / "jax", tmp_path / "torch", "--to", "torch")
    assert result.code == 0, result.err
    name = "model.safetensors"
    assert (tmp_path / "torch" / name).read_bytes() == (published / name).read_bytes()


def test_convert_changes_the_dtype(nvembed, tmp_path, published):
    assert nvembed("convert", published, tmp_path / "a", "--dtype", "bfloat16").code == 0
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(load_params(tmp_path / "a"))} == {
        "bfloat16"
    }
    facts = json.loads(nvembed("info", tmp_path / "a", "--json").out)
    assert facts["dtype"] == "bfloat16"


def test_converted_model_encodes_the_same(nvembed, tmp_path, model_folder, published):
    assert nvembed("convert", published, tmp_path / "a").code == 0
    texts = ["cats", "dogs bark"]
    ours, given = (
        Embedder.from_pretrained(f).encode(texts) for f in (tmp_path / "a", model_folder)
    )
    np.testing.assert_array_equal(ours, given)


def test_failed_conversions_are_one_line_and_leave_nothing(nvembed, one_error, tmp_path, published):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_bytes((published / "config.json").read_bytes())
    before = sorted(os.listdir(tmp_path))
    for args in (
        (tmp_path / "none", tmp_path / "out"),
        (tmp_path / "broken", tmp_path / "out"),
        (published, tmp_path / "full"),
    ):
        one_error(nvembed("convert", *args), 1)
    assert sorted(os.listdir(tmp_path)) == before
    assert os.listdir(tmp_path / "full") == ["mine"]
