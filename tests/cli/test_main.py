"""The frame of the command line: help, version, exit codes, and errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from nvembed_jax.cli.main import describe
from nvembed_jax.version import __version__

COMMANDS = (
    *("search", "encode", "info", "convert"),
    *("train", "mine", "decontaminate", "synthesize", "evaluate"),
    *("serve", "corpus", "calibrate", "compare", "dedup", "cluster"),
)


def process(*args: str, **kw) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "nvembed_jax", *args],
        capture_output=True,
        text=True,
        check=False,
        **kw,
    )


def test_version_and_help(nvembed):
    assert nvembed("--version") == (0, f"nvembed {__version__}\n", "")
    result = nvembed("--help")
    assert result.code == 0
    assert all(f"  {name} " in result.out for name in COMMANDS)
    assert nvembed("-h").out == result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples(nvembed, command):
    result = nvembed(command, "--help")
    assert result.code == 0
    assert "Examples:\n" in result.out
    assert f"    nvembed {command}" in result.out


@pytest.mark.parametrize("args", [(), ("search",), ("encode",), ("convert",)])
def test_no_arguments_show_the_help_and_fail_as_usage(nvembed, args):
    result = nvembed(*args)
    assert (result.code, result.out) == (2, "")
    assert "Usage: nvembed" in result.err


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("serach",), "No such command 'serach'"),
        (("encode", "a.txt", "-o", "b.npy", "--presicion", "int8"), "--presicion"),
        (("encode", "a.txt", "-o", "b.npy", "--precision", "int4"), "'int4' is not one of"),
        (("encode", "a.txt"), "--output"),
        (("encode", "a.txt", "-o", "b.npy", "--truncate-dim", "0"), "--truncate-dim"),
        (("encode", "a.txt", "-o", "b.npy", "--dtype", "int8"), "--dtype"),
        (("encode", "a.txt", "-o", "b.npy", "--prompt", "x", "--task", "y"), "--prompt"),
        (("encode", "a.txt", "-o", "b.npy", "--prompt", "x", "--prompt-name", "y"), "--prompt"),
        (("encode", "a.txt", "-o", "b.npy", "--input-type", "passage", "--task", "y"), "--task"),
        (("search", "a.txt"), "--query"),
        (("search", "a.txt", "-q", " "), "-q needs a text"),
        (("search", "a.txt", "-q", "x", "-k", "0"), "-k"),
        (("search", "a.txt", "-q", "x", "--overlap", "3"), "--overlap"),
        (("search", "a.txt", "-q", "x", "--chunk-tokens", "8", "--overlap", "8"), "--overlap"),
        (("convert", "a"), "DST"),
        (("convert", "a", "b", "--to", "onnx"), "'onnx' is not one of"),
        (("convert", "a", "b", "--to", "torch", "--dtype", "float32"), "--dtype"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(nvembed, one_error, args, part):
    message = one_error(nvembed(*args), 2)
    assert part in message
    assert "--help" in message


def test_errors_are_described_in_one_line():
    assert describe(ValueError("a\n  b\n")) == "a; b"
    assert describe(FileNotFoundError(2, "No such file or directory", "x.txt")) == (
        "x.txt: No such file or directory"
    )
    assert describe(KeyError("k")) == "KeyError: 'k' (NVEMBED_DEBUG=1 shows where)"


def test_debug_shows_the_traceback(nvembed, monkeypatch, tmp_path):
    monkeypatch.setenv("NVEMBED_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        nvembed("encode", tmp_path / "none.txt", "-o", tmp_path / "a.npy")


def test_module_runs_as_the_command_and_without_a_traceback(tmp_path):
    result = process("--version")
    assert (result.returncode, result.stdout) == (0, f"nvembed {__version__}\n")
    result = process("search", str(tmp_path / "none.txt"), "-q", "x")
    assert result.returncode == 1
    assert result.stderr == f"nvembed: error: {tmp_path / 'none.txt'}: no such file or folder\n"
    assert process("nonsense").returncode == 2


def test_help_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from nvembed_jax.cli.main import run\n"
        "assert run(['search', '--help']) == 0\n"
        "heavy = {'jax', 'numpy', 'tokenizers', 'bm25s', 'tqdm', 'pyarrow', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 5


def test_a_reader_that_goes_away_is_no_error(tmp_path, model_folder):
    (tmp_path / "a.txt").write_text("some text\n" * 3)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nvembed_jax", "search", str(tmp_path / "a.txt"), "-q", "x"]
    result = subprocess.run(
        [*command, "-m", str(model_folder)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")
