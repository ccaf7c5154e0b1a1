"""`nvembed serve`: options and the environment become settings; wrong usage loads nothing."""

from __future__ import annotations

import socket

import pytest
import typer
from typer.testing import CliRunner

from nvembed_jax.cli import options, serve
from nvembed_jax.serve import address, logs, server


@pytest.fixture
def command(monkeypatch):
    """(args, environment) -> the result of a command line, and what was to be served."""
    app = typer.Typer()
    app.command(context_settings=serve.SETTINGS)(serve.command)
    served = {}

    def load(spec, **given):
        served.setdefault("loaded", []).append((spec, given))
        return f"model {spec}"

    def run(models, settings, host, port, *, grpc_port, on_listening):
        served.update(models=models, settings=settings, host=host, port=port, grpc_port=grpc_port)

    monkeypatch.setattr(options, "load_model", load)
    monkeypatch.setattr(server, "run_server", run)
    monkeypatch.setattr(logs, "configure", lambda level: served.update(level=level))
    monkeypatch.delenv("NVEMBED_MODEL", raising=False)

    def call(*args, **env):
        served.clear()
        result = CliRunner().invoke(app, [str(arg) for arg in args], env=env)
        return result, dict(served)

    return call


def test_without_options_the_bundled_model_is_served_here(command):
    result, served = command()
    assert result.exit_code == 0, result.output
    assert served["models"] == [("nvembed-tiny", "model None")]
    assert (served["host"], served["port"]) == ("127.0.0.1", 8000)
    assert served["grpc_port"] is None
    assert served["settings"].api_keys == ()


def test_ids_are_names_else_folders_else_what_was_typed(command, tmp_path, monkeypatch):
    folder = tmp_path / "my-model"
    folder.mkdir()
    _, served = command("--model", f"{folder}/", "--model", "nvidia/NV-Embed-v2")
    assert [id for id, _ in served["models"]] == ["my-model", "nvidia/NV-Embed-v2"]
    monkeypatch.chdir(folder)
    _, served = command("--model", ".")
    assert [id for id, _ in served["models"]] == ["my-model"]
    _, served = command("--model", folder, "--model", "b", "--name", "x", "--name", "y")
    assert [id for id, _ in served["models"]] == ["x", "y"]


def test_options_and_environment_become_settings(command, tmp_path):
    file = tmp_path / "keys"
    file.write_text("from-file\n")
    env = {
        "NVEMBED_API_KEY": "one two", "NVEMBED_API_KEY_FILE": str(file), "NVEMBED_PORT": "9",
        "NVEMBED_MODEL": "a b", "NVEMBED_DEFAULT_INPUT_TYPE": "query", "NVEMBED_TASK": "find it",
        "NVEMBED_MAX_LENGTH": "32", "NVEMBED_ALLOW_DIMENSIONS": "1",
    }  # fmt: skip
    result, served = command("--host", "::1", "--max-body-mib", "2", "--no-warmup", **env)
    assert result.exit_code == 0, result.output
    settings = served["settings"]
    assert settings.api_keys == ("one", "two", "from-file")
    assert (settings.default_input_type, settings.task) == ("query", "find it")
    assert (settings.max_body_bytes, settings.warmup) == (2 * 2**20, False)
    assert settings.allow_dimensions
    assert (served["host"], served["port"]) == ("::1", 9)
    assert [spec for spec, _ in served["loaded"]] == ["a", "b"]
    assert served["loaded"][0][1]["max_length"] == 32
    _, served = command("--api-key", "k", "--grpc-port", "8001", **env)
    assert served["grpc_port"] == 8001
    assert served["settings"].api_keys == ("k", "from-file")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("--model", "a", "--name", "x", "--name", "y"), "got 2 for 1"),
        (("--model", "a", "--model", "a"), "two models are named 'a'"),
        (("--model", "openai:text-embedding-3-small"), "remote model cannot be served"),
        (("--default-input-type", "document"), "default-input-type"),
        (("--port", "70000"), "--port"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_loads_nothing(command, args, part):
    result, served = command(*args)
    assert result.exit_code == 2
    assert part in result.output.replace("\n", " ")
    assert "loaded" not in served


def test_an_open_address_without_a_key_is_noted(command):
    assert "no API key" in command("--host", "0.0.0.0")[0].output
    assert "no API key" not in command("--host", "0.0.0.0", "--api-key", "k")[0].output


def test_an_address_in_use_is_one_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            address.listen("127.0.0.1", port)
