from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_folders import (
    BERT,
    BF16,
    GEMMA2,
    LAYERS,
    MISTRAL,
    NVEMBED,
    QWEN2,
    all_files,
    bert_folder,
    bert_shapes,
    decoder_shapes,
    dense_qwen2_folder,
    nvembed_folder,
    nvembed_shapes,
    random_tensors,
    write_folder,
)
from safetensors.numpy import save_file

from nvembed_jax.checkpoint import (
    convert_checkpoint,
    expected_shapes,
    export_checkpoint,
    load_config,
)
from nvembed_jax.checkpoint.safetensors_io import SafetensorsFolder

SIZES = {
    "mistral": (MISTRAL, decoder_shapes()),
    "mistral with prefix": (MISTRAL, decoder_shapes("model.")),
    "qwen2": (QWEN2, decoder_shapes("model.", bias=True)),
    "gemma2": (GEMMA2, decoder_shapes(post_norms=True, head=8)),
    "bert": (BERT, bert_shapes()),
    "bert with prefix": (BERT, bert_shapes("bert.")),
    "nvembed": (NVEMBED, nvembed_shapes()),
}


def contents(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(entry.view()) for name, entry in SafetensorsFolder(folder).items()}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("shards", [1, 4])
def test_conversion_round_trip_gives_the_same_files(tmp_path, family, shards):
    config, shapes = SIZES[family]
    write_folder(tmp_path / "src", config, random_tensors(shapes), shards=shards)
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(tmp_path / "src")
    shapes = {name: entry.shape for name, entry in SafetensorsFolder(tmp_path / "ours").items()}
    assert shapes == expected_shapes(load_config(tmp_path / "src"))


@pytest.mark.parametrize("make", [bert_folder, dense_qwen2_folder], ids=["unused", "dense"])
def test_conversion_round_trip_keeps_tensors_that_embeddings_do_not_need(tmp_path, make):
    make(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(tmp_path / "src")
    own = set(SafetensorsFolder(tmp_path / "ours"))
    assert own == set(expected_shapes(load_config(tmp_path / "src")))


def test_conversion_round_trip_keeps_code_odd_headers_and_a_transformer_subfolder(tmp_path):
    inner = bert_folder(tmp_path / "src" / "0_Transformer")
    (inner / "model.safetensors").unlink()
    save_file(random_tensors(bert_shapes(), np.float32), inner / "model.safetensors", {"x": "é"})
    (inner.parent / "modeling_own.py").write_text("raise SystemExit\n")
    modules = [{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    (inner.parent / "modules.json").write_text(json.dumps(modules))
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(tmp_path / "src")


def test_converted_decoder_holds_the_published_bits_layer_by_layer(tmp_path):
    src = contents(nvembed_folder(tmp_path / "src"))
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    ours = contents(tmp_path / "ours")
    attend = "latent_attention_model.cross_attend_blocks"
    for i in range(LAYERS):
        for name in ("self_attn.k_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"):
            published = src[f"embedding_model.layers.{i}.{name}"]
            assert same_bits(ours[f"backbone.layers.{name}"][i], published)
    for name, published in {
        "backbone.embed_tokens.weight": "embedding_model.embed_tokens.weight",
        "backbone.norm.weight": "embedding_model.norm.weight",
        "pooling.latents": "latent_attention_model.latents",
        "pooling.cross_attn.norm_context.bias": f"{attend}.0.norm_context.bias",
        "pooling.cross_attn.to_kv.weight": f"{attend}.0.fn.to_kv.weight",
        "pooling.cross_attn.to_out.weight": f"{attend}.0.fn.to_out.weight",
        "pooling.feed_forward.up.bias": f"{attend}.1.fn.net.0.bias",
        "pooling.feed_forward.down.weight": f"{attend}.1.fn.net.2.weight",
    }.items():
        assert same_bits(ours[name], src[published])


def test_converted_bert_holds_the_published_bits_layer_by_layer(tmp_path):
    src = contents(bert_folder(tmp_path / "src"))
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    ours = contents(tmp_path / "ours")
    layer = {
        "self_attn.q_proj": "attention.self.query", "self_attn.k_proj": "attention.self.key",
        "self_attn.v_proj": "attention.self.value", "self_attn.o_proj": "attention.output.dense",
        "attention_layernorm": "attention.output.LayerNorm", "mlp.up_proj": "intermediate.dense",
        "mlp.down_proj": "output.dense", "output_layernorm": "output.LayerNorm",
    }  # fmt: skip
    for i in range(LAYERS):
        for name, published in layer.items():
            for kind in ("weight", "bias"):
                found = ours[f"backbone.layers.{name}.{kind}"][i]
                assert same_bits(found, src[f"encoder.layer.{i}.{published}.{kind}"])
    assert same_bits(ours["backbone.embeddings.norm.bias"], src["embeddings.LayerNorm.bias"])


def test_converted_folder_holds_config_tokenizer_and_shards(tmp_path):
    nvembed_folder(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours", shard_bytes=4000)
    names = {path.name for path in (tmp_path / "ours").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} <= names
    shards = sorted(name for name in names if name.endswith(".safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    data = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (data["model_type"], data["format_version"]) == ("nvembed_jax", 1)
    assert load_config(tmp_path / "ours") == load_config(tmp_path / "src")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(tmp_path / "src")


def test_conversion_reports_its_progress(tmp_path):
    nvembed_folder(tmp_path / "src")
    calls = []
    convert_checkpoint(tmp_path / "src", tmp_path / "ours", progress=lambda *c: calls.append(c))
    done, totals = zip(*calls, strict=True)
    assert set(totals) == {sum(e.nbytes for e in SafetensorsFolder(tmp_path / "ours").values())}
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1]


@pytest.mark.parametrize("source", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("target", ["float32", "bfloat16", "float16"])
def test_dtype_conversion_rounds_to_nearest_even(tmp_path, source, target):
    bert_folder(tmp_path / "a")
    tensors = contents(tmp_path / "a")
    tensors = {n: v.astype(source) if v.dtype == np.float32 else v for n, v in tensors.items()}
    ties = np.array([1 + 2**-9, 1 + 3 * 2**-8, 2**-133, 65280, -0.0, 3e38], np.float32)
    if target == "float16" or source == "float16":
        ties[-1] = 6e-8
    word = tensors["embeddings.word_embeddings.weight"]
    word[0, :6] = ties.astype(source)
    save_file(tensors, tmp_path / "a" / "model.safetensors")
    convert_checkpoint(tmp_path / "a", tmp_path / "b", dtype=target)
    found = contents(tmp_path / "b")["backbone.embeddings.word_embeddings.weight"]
    assert same_bits(found, round_to_nearest_even(word.astype(np.float32), target))


def round_to_nearest_even(x: np.ndarray, target: str) -> np.ndarray:
    if target != "bfloat16":
        return x.astype(target)
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16).view(BF16)


def test_dtype_conversion_keeps_integers_and_exports_with_the_new_dtype(tmp_path):
    bert_folder(tmp_path / "src", torch_dtype="float32")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours", dtype="bfloat16")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    back = contents(tmp_path / "back")
    for name, values in contents(tmp_path / "src").items():
        unused = name.startswith("pooler.") or name == "embeddings.position_ids"
        assert same_bits(back[name], values if unused else values.astype(BF16))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_dtype_change_updates_the_size_in_the_exported_index(tmp_path):
    nvembed_folder(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours", dtype="float32")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    tensors = SafetensorsFolder(tmp_path / "back")
    assert index["metadata"]["total_size"] == sum(e.nbytes for e in tensors.values())
    assert list(tensors.headers) == list(SafetensorsFolder(tmp_path / "src").headers)


def test_dtype_of_a_converted_folder_can_be_changed_again(tmp_path):
    nvembed_folder(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "wide", dtype="float32")
    convert_checkpoint(tmp_path / "wide", tmp_path / "narrow", dtype="bfloat16")
    export_checkpoint(tmp_path / "narrow", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(tmp_path / "src")


def test_float16_overflow_is_refused_by_name(tmp_path):
    tensors = random_tensors(decoder_shapes())
    tensors["layers.1.mlp.up_proj.weight"][2, 3] = 1e6
    write_folder(tmp_path / "src", MISTRAL, tensors)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight' does not fit float16"):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def broken(tensors: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    name = "embedding_model.layers.1.mlp.up_proj.weight"
    if kind == "missing":
        del tensors[name]
    elif kind == "unknown":
        tensors["embedding_model.layers.1.mlp.extra.weight"] = np.zeros(3, np.float32)
    elif kind == "layer too many":
        tensors["embedding_model.layers.3.mlp.up_proj.weight"] = tensors[name]
    elif kind == "transposed":
        tensors[name] = np.ascontiguousarray(tensors[name].T)
    elif kind == "mixed":
        tensors[name] = tensors[name].astype(np.float32)
    return tensors


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"layers\.1\.mlp\.up_proj\.weight' is missing \(expected shape \[24, 16\]\)"),
        ("unknown", r"layers\.1\.mlp\.extra\.weight' \(shape \[3\]\) is unknown .*'nvembed'"),
        ("layer too many", r"layers\.3\.mlp\.up_proj\.weight' .* is unknown"),
        ("transposed", r"up_proj\.weight' has shape \[16, 24\], expected \[24, 16\]"),
        ("mixed", r"layers of backbone\.layers\.mlp\.up_proj\.weight differ in dtype"),
    ],
)
def test_tensor_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path, kind, message):
    tensors = broken(random_tensors(nvembed_shapes()), kind)
    write_folder(tmp_path / "src", NVEMBED, tensors, shards=2)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_config_of_another_family_is_refused(tmp_path):
    write_folder(tmp_path / "src", MISTRAL, random_tensors(bert_shapes()))
    with pytest.raises(ValueError, match="Do the config and the weights belong together"):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours")


def test_missing_dense_layer_is_named(tmp_path):
    dense_qwen2_folder(tmp_path / "src")
    (tmp_path / "src" / "2_Dense_1024" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="2_Dense_1024"):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours")


def test_conversion_gives_the_same_files_each_time(tmp_path):
    nvembed_folder(tmp_path / "src")
    for name in ("a", "b"):
        convert_checkpoint(tmp_path / "src", tmp_path / name)
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")


def test_target_must_be_new_or_empty(tmp_path):
    nvembed_folder(tmp_path / "src")
    (tmp_path / "ours").mkdir()
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    before = all_files(tmp_path)
    with pytest.raises(FileExistsError, match="is not empty"):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours", dtype="float32")
    with pytest.raises(FileExistsError, match="is a file"):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours" / "config.json")
    assert all_files(tmp_path) == before


def test_source_of_the_wrong_kind_is_refused(tmp_path):
    nvembed_folder(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    with pytest.raises(ValueError, match="already in our format"):
        convert_checkpoint(tmp_path / "ours", tmp_path / "x")
    with pytest.raises(ValueError, match="already in published form"):
        export_checkpoint(tmp_path / "src", tmp_path / "x")


def test_full_disk_is_reported_and_nothing_is_left(tmp_path, monkeypatch):
    nvembed_folder(tmp_path / "src")

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nvembed_jax.checkpoint.safetensors_write._send", no_room)
    with pytest.raises(OSError, match="the disk is full; nothing was left behind"):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_copy_goes_on_through_a_buffer_where_sendfile_is_not_possible(tmp_path, monkeypatch):
    nvembed_folder(tmp_path / "src")

    def impossible(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.sendfile", impossible)
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(tmp_path / "src")


def test_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    nvembed_folder(tmp_path / "src")
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("nvembed_jax.checkpoint.atomic.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="bytes are needed, 10 are free"):
        convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


STUCK = """
import sys, time
from nvembed_jax.checkpoint import convert_checkpoint
def stop(done, total):
    if done > total // 2:
        print("half", flush=True)
        time.sleep(60)
convert_checkpoint(sys.argv[1], sys.argv[2], progress=stop, shard_bytes=4000)
"""


def test_killed_conversion_leaves_nothing_finished_and_the_next_one_cleans_up(tmp_path):
    nvembed_folder(tmp_path / "src")
    command = [sys.executable, "-c", STUCK, str(tmp_path / "src"), str(tmp_path / "ours")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        os.kill(process.pid, signal.SIGKILL)
    (partial,) = (path for path in tmp_path.iterdir() if path.name != "src")
    assert any(partial.glob("*.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_config(partial)
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    assert {path.name for path in tmp_path.iterdir()} == {"src", "ours"}
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(tmp_path / "src")


MEASURED = """
import sys, threading
from nvembed_jax.checkpoint import convert_checkpoint
def anon():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) // 1024
start, peak = anon(), [0]
def poll(done, total):
    peak[0] = max(peak[0], anon())
convert_checkpoint(sys.argv[1], sys.argv[2], dtype=sys.argv[3] or None, progress=poll)
print(peak[0] - start)
"""


@pytest.mark.parametrize("dtype", ["", "float32"])
def test_conversion_memory_does_not_grow_with_the_model(tmp_path, dtype):
    grown = []
    for vocab in (1 << 19, 1 << 21):  # 16 and 64 MiB of embeddings
        shapes = decoder_shapes() | {"embed_tokens.weight": (vocab, 16)}
        tensors = random_tensors(decoder_shapes())
        tensors["embed_tokens.weight"] = np.zeros(shapes["embed_tokens.weight"], BF16)
        src = write_folder(tmp_path / str(vocab), MISTRAL | {"vocab_size": vocab}, tensors)
        command = [sys.executable, "-c", MEASURED, str(src), str(tmp_path / f"{vocab}j"), dtype]
        grown.append(int(subprocess.run(command, check=True, capture_output=True).stdout))
    assert max(grown) <= 48  # two 16 MiB chunks at most, and room for noise
    assert grown[1] - grown[0] <= 8


def test_source_tensors_of_transformers_models_are_all_known(tmp_path):
    import transformers

    sizes = {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    decoder = sizes | {"num_key_value_heads": 2, "pad_token_id": 0}
    models = [
        transformers.MistralModel(transformers.MistralConfig(**decoder, head_dim=8)),
        transformers.MistralForCausalLM(transformers.MistralConfig(**decoder, head_dim=4)),
        transformers.Qwen2Model(transformers.Qwen2Config(**decoder)),
        transformers.Gemma2Model(transformers.Gemma2Config(**decoder, head_dim=8)),
        transformers.BertModel(transformers.BertConfig(**sizes)),
        transformers.BertForMaskedLM(transformers.BertConfig(**sizes)),
    ]
    for number, model in enumerate(models):
        src, ours, back = (tmp_path / f"{number}{kind}" for kind in ("src", "ours", "back"))
        model.save_pretrained(src, max_shard_size="8KB")
        convert_checkpoint(src, ours)
        export_checkpoint(ours, back)
        assert all_files(back) == all_files(src)
