"""`Embedder`: order, shapes, options, batches of few shapes, meshes, and bad input."""

from __future__ import annotations

import dataclasses
import random
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nvembed_jax.text
from nvembed_jax import Embedder
from nvembed_jax.checkpoint import save_model
from nvembed_jax.config import QUERY_TEMPLATE, tiny
from nvembed_jax.model import init_params
from nvembed_jax.sharding import make_mesh

WORDS = ["latent", "attention", "pools", "hidden", "states", "of", "every", "token", "into", "one"]
VOCAB = 8192
PACKAGED_TOKENIZER = Path(nvembed_jax.text.__file__).parent / "data"


def texts(count: int, longest: int = 40, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, longest))) for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny(vocab_size=VOCAB)
    text = dataclasses.replace(config.text, max_length=64, prompts=(("poem", "Poem: "),))
    config = dataclasses.replace(config, text=text)
    out = tmp_path_factory.mktemp("models") / "tiny"
    params = jax.jit(partial(init_params, config))(jax.random.key(0))
    save_model(out, config, params, src_folder=PACKAGED_TOKENIZER)
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> Embedder:
    return Embedder.from_pretrained(folder)


def test_order_is_kept_and_batches_do_not_matter(model: Embedder):
    inputs = texts(60)
    whole = model.encode(inputs, batch_tokens=256)
    assert whole.shape == (60, 64)
    assert whole.dtype == np.float32
    alone = np.stack([model.encode(text) for text in inputs[:8]])
    np.testing.assert_allclose(whole[:8], alone, atol=1e-6)
    shuffled = list(range(60))
    random.Random(1).shuffle(shuffled)
    again = model.encode([inputs[i] for i in shuffled], batch_tokens=1024)
    np.testing.assert_allclose(again, whole[shuffled], atol=1e-6)


def test_shapes_of_single_empty_and_no_input(model: Embedder):
    assert model.encode("one text").shape == (64,)
    assert model.encode([]).shape == (0, 64)
    assert model.encode_query([], precision="ubinary").shape == (0, 8)
    empty = model.encode("")
    assert np.isfinite(empty).all()
    assert np.linalg.norm(empty) == pytest.approx(1, abs=1e-6)
    assert model.encode(("a", "b")).shape == (2, 64)
    assert model.encode(np.array(["a", "b"])).shape == (2, 64)


def test_compilations_are_bounded(folder: Path):
    model = Embedder.from_pretrained(folder)
    for seed in range(30):
        model.encode(texts(random.Random(seed).randint(1, 50), seed=seed), batch_tokens=512)
    seen = model.num_compilations
    assert seen <= 20
    for seed in range(30):
        model.encode(texts(random.Random(seed).randint(1, 50), seed=seed), batch_tokens=512)
    assert model.num_compilations == seen


def test_query_template_and_prompts(model: Embedder):
    task = "Find the poem"
    query = model.encode_query("rose", task=task)
    np.testing.assert_allclose(model.encode("rose", task=task), query, atol=1e-6)
    prompt = QUERY_TEMPLATE.format(task=task)
    np.testing.assert_allclose(model.encode("rose", prompt=prompt), query, atol=1e-6)
    assert np.abs(query - model.encode_document("rose")).max() > 1e-4
    named = model.encode("rose", prompt_name="poem")
    np.testing.assert_allclose(named, model.encode("rose", prompt="Poem: "), atol=1e-6)
    default = model.encode_query("rose", task=model.config.text.default_task)
    np.testing.assert_allclose(model.encode_query("rose"), default, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a", "task": "b"}, "prompt and task contradict each other"),
        ({"prompt": "a", "prompt_name": "poem"}, "prompt and prompt_name contradict"),
        ({"prompt_name": "prose"}, "unknown prompt_name 'prose'; this model has: poem"),
        ({"precision": "int4"}, "precision must be one of"),
        ({"output": "torch"}, "output must be 'numpy' or 'jax'"),
        ({"max_length": 65}, r"max_length must be in 1..64"),
        ({"truncate_dim": 65}, "expected 1 to 64"),
        ({"batch_tokens": 0}, "batch_tokens.* got 0"),
    ],
)
def test_bad_options_are_refused(model: Embedder, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        model.encode(["text"], **options)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "expected a string or a sequence of strings; got NoneType"),
        (3, "got int"),
        (b"bytes", "got bytes"),
        (["fine", None], "texts\\[1\\] must be a string; got NoneType"),
        (["fine", 3.5], "texts\\[1\\] must be a string; got float"),
        (["fine", "lone \ud800 surrogate"], r"texts\[1\].*lone surrogate"),
    ],
)
def test_inputs_that_are_no_text_are_named(model: Embedder, inputs, message: str):
    with pytest.raises(ValueError, match=message):
        model.encode(inputs)


def test_very_long_text_is_truncated_with_its_eos(model: Embedder):
    words = "token " * 2_000_000
    np.testing.assert_allclose(model.encode(words), model.encode(words[:3000]), atol=1e-6)
    published = dataclasses.replace(model.config, name="same")
    assert published.text.add_eos
    encoded = model.tokenizer.encode([words], max_length=64)[0]
    assert encoded.input_ids[-1] == model.tokenizer.eos_id


def test_truncation_as_published_loses_the_eos(folder: Path, model: Embedder):
    lossy = Embedder.from_pretrained(folder, truncation="published")
    long, short = "token " * 200, "token"
    np.testing.assert_allclose(lossy.encode(short), model.encode(short), atol=1e-6)
    assert np.abs(lossy.encode(long) - model.encode(long)).max() > 1e-5


def test_matryoshka_truncates_then_normalises(model: Embedder):
    full, cut = model.encode("text"), model.encode("text", truncate_dim=16)
    np.testing.assert_allclose(cut, full[:16] / np.linalg.norm(full[:16]), atol=1e-6)
    raw = model.encode("text", truncate_dim=16, normalize=False)
    np.testing.assert_allclose(raw, model.encode("text", normalize=False)[:16], atol=1e-6)


def test_codes_do_not_depend_on_the_batch(model: Embedder):
    inputs = texts(12)
    for precision, width in (("int8", 64), ("uint8", 64), ("binary", 8), ("ubinary", 8)):
        codes = model.encode(inputs, precision=precision)
        assert codes.shape == (12, width)
        np.testing.assert_array_equal(codes[3], model.encode(inputs[3], precision=precision))
    int8 = model.encode(inputs, precision="int8").astype(np.float32)
    cosine = np.diag(model.similarity(int8 + 0.5, model.encode(inputs)))
    assert cosine.min() > 0.999


def test_output_as_jax(model: Embedder):
    out = model.encode(["text"], output="jax")
    assert isinstance(out, jax.Array)


def test_similarity_is_cosine(model: Embedder):
    a, b = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([0.0, 2.0])
    np.testing.assert_allclose(model.similarity(a, b), [[0.0], [0.5**0.5]], atol=1e-6)
    with pytest.raises(ValueError, match="differ in width"):
        model.similarity(a, np.ones(3))


def test_mesh_gives_the_same_embeddings(folder: Path, model: Embedder):
    inputs = texts(30)
    split = Embedder.from_pretrained(folder, mesh=make_mesh(data=4, tensor=2))
    np.testing.assert_allclose(split.encode(inputs), model.encode(inputs), atol=1e-5)
    assert split.encode("one").shape == (64,)


def test_plain_and_folded_agree_and_bfloat16_is_near(folder: Path, model: Embedder):
    inputs = texts(10)
    plain = Embedder.from_pretrained(folder, fold_latents=False)
    np.testing.assert_allclose(plain.encode(inputs), model.encode(inputs), atol=1e-6)
    rough = Embedder.from_pretrained(folder, dtype="bfloat16")
    assert rough.params["backbone"]["embed_tokens"]["weight"].dtype == jnp.bfloat16
    assert np.diag(model.similarity(rough.encode(inputs), model.encode(inputs))).min() > 0.999


def test_attention_and_pooling_can_be_overridden(folder: Path, model: Embedder):
    causal = Embedder.from_pretrained(folder, attention="causal", pooling="mean")
    assert (causal.config.attention, causal.config.pooling) == ("causal", "mean")
    assert np.abs(causal.encode("some text") - model.encode("some text")).max() > 1e-4
    with pytest.raises(ValueError, match="pooling must be one of"):
        Embedder.from_pretrained(folder, pooling="max")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int3"}, "dtype must be one of float32, bfloat16, float16; got 'int3'"),
        ({"truncation": "left"}, "truncation must be 'keep_eos' or 'published'"),
        ({"max_length": 10**6}, "max_length must be in 1..32768"),
    ],
)
def test_bad_model_options_are_refused(folder: Path, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Embedder.from_pretrained(folder, **options)


def test_fingerprint_tells_models_apart(folder: Path, model: Embedder):
    assert Embedder.from_pretrained(folder).fingerprint == model.fingerprint
    assert Embedder.from_pretrained(folder, pooling="mean").fingerprint != model.fingerprint
    assert Embedder.from_pretrained(folder, max_length=32).fingerprint != model.fingerprint


def test_task_is_ignored_once_by_name_where_the_model_knows_none(folder: Path, caplog):
    model = Embedder.from_pretrained(folder)
    text = dataclasses.replace(model.config.text, query_template=None)
    model.config = dataclasses.replace(model.config, text=text)
    plain = model.encode("text")
    np.testing.assert_allclose(model.encode_query("text", task="anything"), plain, atol=1e-6)
    model.encode_query("text", task="anything")
    assert [r.message for r in caplog.records if "task" in r.message] == [
        "tiny knows no task descriptions; `task` is ignored"
    ]


def test_examples_need_a_model_trained_for_them(model: Embedder):
    with pytest.raises(ValueError, match="example"):
        model.encode_query("q", examples=[("a", "b")])
