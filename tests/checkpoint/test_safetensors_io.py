from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from nvembed_jax.checkpoint.safetensors_io import (
    DTYPES,
    SafetensorsFolder,
    float_dtype,
    read_header,
)
from nvembed_jax.checkpoint.safetensors_write import (
    SafetensorsWriter,
    TensorSpec,
    make_header,
    plan_shards,
)

PAIR = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
}


def raw_file(path: Path, header: dict | str, data: bytes) -> Path:
    text = header if isinstance(header, str) else json.dumps(header)
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + data)
    return path


def arrays() -> dict[str, np.ndarray]:
    values = np.arange(6).reshape(2, 3)
    return {name: values.astype(dtype) for name, dtype in DTYPES.items()}


def test_reader_agrees_with_the_safetensors_library_on_every_dtype(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(arrays(), file, metadata={"format": "pt"})
    header = read_header(file)
    assert header.metadata == {"format": "pt"}
    assert set(header.tensors) == set(DTYPES)
    for name, values in arrays().items():
        view = header.tensors[name].view()
        assert view.dtype == values.dtype
        np.testing.assert_array_equal(view, values)


def test_reader_views_are_read_only_maps_of_the_file(tmp_path):
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    view = SafetensorsFolder(tmp_path)["a"].view()
    assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2


def test_reader_accepts_a_tensor_that_begins_at_an_odd_byte(tmp_path):
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    values = np.array([1.5, -2], np.float32)
    file = raw_file(tmp_path / "x.safetensors", header, b"\1\2\3" + values.tobytes())
    np.testing.assert_array_equal(read_header(file).tensors["b"].view(), values)


def test_writer_makes_files_that_the_safetensors_library_reads(tmp_path):
    specs = [TensorSpec(n, v.dtype, v.shape) for n, v in arrays().items()]
    (group,) = plan_shards(specs).values()
    file = tmp_path / "x.safetensors"
    total = sum(spec.nbytes for spec in group)
    with SafetensorsWriter(file, make_header(group, {"k": "v"}), total) as writer:
        for spec in group:
            writer.write(arrays()[spec.name], spec.dtype, spec.name)
    with safe_open(file, "numpy") as library:
        assert library.metadata() == {"k": "v"}
        for name, values in arrays().items():
            if not name.startswith(
                "F8"
            ):  # the library writes these, its NumPy side cannot read them
                np.testing.assert_array_equal(library.get_tensor(name), values)
    assert all(e.offset % e.dtype.itemsize == 0 for e in read_header(file).tensors.values())


def test_writer_refuses_to_finish_a_file_that_is_too_short(tmp_path):
    spec = TensorSpec("a", np.dtype(np.float32), (2,))
    writer = SafetensorsWriter(tmp_path / "x", make_header([spec]), spec.nbytes)
    writer.write(np.ones(1, np.float32), spec.dtype, "a")
    with pytest.raises(RuntimeError, match="wrote 4 bytes, announced 8"):
        writer.__exit__(None, None, None)


def test_plan_shards_keeps_files_below_the_limit_and_gives_a_large_tensor_its_own():
    sizes = [40, 40, 300, 40, 100]
    specs = [TensorSpec(str(i), np.dtype(np.uint8), (size,)) for i, size in enumerate(sizes)]
    plan = [[spec.name for spec in group] for group in plan_shards(specs, 100).values()]
    assert plan == [["0", "1"], ["2"], ["3"], ["4"]]


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        (PAIR, 12, "is truncated: expected .* bytes, found"),
        (PAIR, 20, "longer than its header says: expected .* bytes, found"),
        ("{", 0, "header is not valid"),
        ("[]", 0, "must be an object"),
        ('{"a": 1, "a": 2}', 0, "'a' stands twice"),
        (PAIR | {"b": {**PAIR["b"], "data_offsets": [4, 12]}}, 12, "'b' overlaps"),
        (PAIR | {"b": {**PAIR["b"], "data_offsets": [12, 20]}}, 20, "'b' leaves a gap"),
        (PAIR | {"b": {**PAIR["b"], "data_offsets": [8, 15]}}, 15, "'b' has misaligned offsets"),
        (PAIR | {"b": {**PAIR["b"], "dtype": "F4"}}, 16, "'b' has the unknown dtype 'F4'; known"),
        (PAIR | {"b": {"dtype": "F32"}}, 8, "'b' has a malformed header entry"),
        (PAIR | {"b": {**PAIR["b"], "shape": [-2]}}, 16, "'b' has misaligned"),
    ],
)
def test_reader_names_what_is_wrong_with_a_header(tmp_path, header, size, message):
    file = raw_file(tmp_path / "bad.safetensors", header, bytes(size))
    with pytest.raises(ValueError, match=message) as error:
        read_header(file)
    assert str(file) in str(error.value)


def test_reader_says_how_many_bytes_of_a_truncated_file_are_there(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": np.ones(100, np.float32)}, file)
    whole = file.read_bytes()
    for length in (0, 7, 20, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"is truncated: expected .*found {length}") as error:
            SafetensorsFolder(tmp_path)
        assert str(file) in str(error.value)


def test_reader_refuses_a_file_that_is_no_safetensors_file(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        read_header(file)


def sharded(folder: Path, files: dict[str, list[str]], weight_map: dict[str, str]) -> Path:
    for file, names in files.items():
        save_file({name: np.ones(2, np.float32) for name in names}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(
    ("files", "weight_map", "message"),
    [
        ({"x": ["a"]}, {"a": "x", "b": "y"}, "names the shard 'y', which is missing"),
        ({"x": ["a"]}, {"a": "x", "b": "x"}, "says that tensor 'b' is in x; it is missing there"),
        ({"x": ["a", "b"]}, {"a": "x"}, "x holds tensor 'b', which .* does not name"),
        ({"x": ["a"], "y": ["a", "b"]}, {"a": "x", "b": "y"}, "'a' is a duplicate: .*x and in .*y"),
        ({}, {"a": "../x"}, "a shard must lie in the same folder"),
    ],
)
def test_index_that_disagrees_with_its_shards_is_refused(tmp_path, files, weight_map, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        SafetensorsFolder(sharded(tmp_path, files, weight_map))


def test_index_that_is_no_index_is_refused(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a safetensors index"):
        SafetensorsFolder(tmp_path)


def test_folder_without_safetensors_says_what_it_found(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"found only pytorch_model\.bin"):
        SafetensorsFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model folder"):
        SafetensorsFolder(tmp_path / "none")


def test_float_dtype_takes_names_and_dtypes_and_refuses_others():
    assert float_dtype("bfloat16") == float_dtype(ml_dtypes.bfloat16)
    for wrong in ("int8", "float33", np.float64):
        with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16"):
            float_dtype(wrong)
