"""Embedding files: what is read back, and that a failed write leaves nothing."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from nvembed_jax.data import open_writer
from nvembed_jax.data.writers import NpyWriter, read_ids


def read_back(path):
    if path.suffix == ".npy":
        return read_ids(path.with_suffix(".ids")), np.load(path)
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return table["id"].to_pylist(), np.array(table["embedding"].to_pylist())
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["id"] for row in rows], np.array([row["embedding"] for row in rows])


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint8])
def test_blocks_are_read_back_as_one(tmp_path, suffix, dtype):
    values = (np.random.default_rng(0).normal(size=(7, 5)) * 50).astype(dtype)
    ids = ["a", "b/é", "c", "d", "e e", "", "7"]
    path = tmp_path / f"out{suffix}"
    with open_writer(path) as writer:
        for start, stop in ((0, 3), (3, 4), (4, 7)):
            writer.write(ids[start:stop], values[start:stop])
        assert not path.exists()
    got_ids, got = read_back(path)
    assert got_ids == ids
    np.testing.assert_array_equal(got, values)
    wanted = {path.name, "out.ids"} if suffix == ".npy" else {path.name}
    assert set(os.listdir(tmp_path)) == wanted
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_npy_has_the_dtype_of_the_blocks_and_can_be_mapped(tmp_path):
    with open_writer(tmp_path / "a.npy") as writer:
        writer.write(["x"], np.ones((1, 3), np.float32))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert mapped.dtype == np.float32
    assert mapped.shape == (1, 3)


def test_parquet_is_a_fixed_size_list_in_zstd_and_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("nvembed_jax.data.writers.ROW_GROUP_BYTES", 4 * 8 * 2)
    with open_writer(tmp_path / "a.parquet") as writer:
        for block in np.zeros((3, 2, 8), np.float32):
            writer.write(["x", "y"], block)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert str(file.schema_arrow.field("embedding").type).startswith("fixed_size_list<")
    assert file.schema_arrow.field("embedding").type.list_size == 8
    assert file.metadata.num_row_groups == 3
    assert file.metadata.row_group(0).column(1).compression == "ZSTD"


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_an_error_leaves_nothing_and_the_old_file_as_it_was(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), open_writer(path) as writer:  # noqa: PT012
        writer.write(["a"], np.ones((1, 2), np.float32))
        raise RuntimeError("stop")
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "old"


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_no_embeddings_at_all_is_an_error(tmp_path, suffix):
    with pytest.raises(ValueError, match="no embeddings"), open_writer(tmp_path / f"out{suffix}"):
        pass
    assert not os.listdir(tmp_path)


def test_blocks_that_do_not_match_are_refused(tmp_path):
    writer = open_writer(tmp_path / "a.npy")
    writer.write(["a"], np.ones((1, 2), np.float32))
    for block in (np.ones((1, 3), np.float32), np.ones((1, 2), np.int8)):
        with pytest.raises(ValueError, match="expected blocks of width 2 in float32"):
            writer.write(["b"], block)
    with pytest.raises(ValueError, match="expected 2 embeddings"):
        writer.write(["a", "b"], np.ones((1, 2), np.float32))
    writer.abort()
    assert not os.listdir(tmp_path)


def test_id_with_a_line_break_is_refused_where_ids_are_lines(tmp_path):
    with pytest.raises(ValueError, match="line break"), open_writer(tmp_path / "a.npy") as writer:
        writer.write(["a\nb"], np.ones((1, 2), np.float32))
    with open_writer(tmp_path / "a.jsonl") as writer:
        writer.write(["a\nb"], np.ones((1, 2), np.float32))
    assert read_back(tmp_path / "a.jsonl")[0] == ["a\nb"]


def test_output_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"expected \.npy, \.parquet, \.jsonl"):
        open_writer(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_writer(tmp_path / "none" / "a.npy")
    (tmp_path / "dir.npy").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        open_writer(tmp_path / "dir.npy")
    (tmp_path / "b.ids").mkdir()
    with pytest.raises(IsADirectoryError, match=r"b\.ids"):
        open_writer(tmp_path / "b.npy")
    assert sorted(os.listdir(tmp_path)) == ["b.ids", "dir.npy"]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"nvembed_jax\[parquet\]"):
        open_writer(tmp_path / "a.parquet")
    assert not os.listdir(tmp_path)


def test_npy_without_ids_is_one_file(tmp_path):
    with NpyWriter(tmp_path / "a.npy", with_ids=False) as writer:
        writer.write(["a\nb"], np.ones((1, 2), np.float32))
    assert os.listdir(tmp_path) == ["a.npy"]
