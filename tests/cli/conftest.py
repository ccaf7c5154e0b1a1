"""A tiny model on disk, and a way to run the command line in this process."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from nvembed_jax.checkpoint import save_model
from nvembed_jax.cli.main import run
from nvembed_jax.cli.options import load_model
from nvembed_jax.config import ModelConfig, tiny
from nvembed_jax.model import init_params


class Result(NamedTuple):
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """One layer only: most of the time goes into compiling."""
    config = tiny(vocab_size=8192)
    return replace(config, backbone=replace(config.backbone, num_layers=1))


@pytest.fixture(scope="session")
def make_model(tmp_path_factory, tiny_config):
    """(seed) -> the folder of a tiny model with the packaged tokenizer."""

    def make(seed: int) -> Path:
        folder = tmp_path_factory.mktemp("model") / f"tiny-{seed}"
        params = init_params(tiny_config, jax.random.key(seed))
        with resources.as_file(resources.files("nvembed_jax.text") / "data") as tokenizer:
            save_model(folder, tiny_config, params, src_folder=tokenizer)
        return folder

    return make


@pytest.fixture(scope="session")
def model_folder(make_model) -> Path:
    return make_model(0)


@pytest.fixture(scope="session")
def load_once():
    """The loader of the commands, but a model with the same options is loaded and compiled once."""
    loaded = {}

    def load(model, **options):
        given = {k: v for k, v in options.items() if v is not None and v != "keep_eos"}
        key = (str(model), *sorted(given.items()))
        if key not in loaded:
            loaded[key] = load_model(model, **options)
        return loaded[key]

    return load


@pytest.fixture(scope="session")
def model(model_folder, load_once):
    """The tiny model itself, as the commands have it."""
    return load_once(str(model_folder))


@pytest.fixture
def one_error():
    """(result, code) -> the single line on standard error of a command that failed so."""

    def check(result: Result, code: int) -> str:
        assert result.code == code, result
        assert result.out == ""
        assert result.err.count("\n") == 1, result.err
        assert result.err.startswith("nvembed: error: ")
        return result.err

    return check


@pytest.fixture
def nvembed(capsys, monkeypatch, model_folder, load_once):
    """Runs `nvembed ARGS` with the tiny model as the default one."""
    monkeypatch.setattr("nvembed_jax.cli.options.load_model", load_once)
    monkeypatch.setenv("NVEMBED_MODEL", str(model_folder))
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args: object) -> Result:
        code = run([str(arg) for arg in args])
        return Result(code, *capsys.readouterr())

    return call
