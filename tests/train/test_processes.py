"""Two processes of four devices train as one process of one device does."""

from __future__ import annotations

import socket

import pytest
import runs


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    data = runs.write_pairs(tmp_path / "pairs.jsonl")
    plain = runs.plain_recipe(data, mesh={"data": 1, "fsdp": 1, "tensor": 1})
    plain["stage1"]["chunk_size"] = 16
    plain["trainable"] = {"full": ["pooling.*"], "lora": {"rank": 2, "dropout": 0.1}}
    config = runs.write_config(tmp_path / "config.py", plain)
    runs.finish(runs.start(config, tmp_path / "one"))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--distributed", "--config.mesh.data=2", "--config.mesh.fsdp=4"]
    processes = [
        runs.start(
            config, tmp_path / "two", *options, devices=4,
            JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}", JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]  # fmt: skip
    for process in processes:
        runs.finish(process)
    expected, got = runs.losses(tmp_path / "one"), runs.losses(tmp_path / "two")
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert [row[2] for row in got] == pytest.approx([row[2] for row in expected], rel=1e-5)

    from nvembed_jax import Embedder

    texts = ["river stone", "green cloud music"]
    one, two = (
        Embedder.from_pretrained(tmp_path / name / "model").encode(texts) for name in ("one", "two")
    )
    assert abs(one - two).max() < 1e-4
