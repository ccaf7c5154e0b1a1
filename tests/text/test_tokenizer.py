"""The tokenizer's own rules: what is added, kept, refused, and read from a folder."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from published_nvembed import MINILM
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from nvembed_jax.config import TextConfig, minilm_l6, nv_embed_v2
from nvembed_jax.text.tokenizer import Tokenizer

EOS_TEXT = TextConfig(max_length=64, add_eos=True, mask_instruction=True)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.packaged(EOS_TEXT)


def write_folder(folder, *, opens=True, closes=False, config=None):
    """A word-level decoder tokenizer as a model folder: <unk> 0, <s> 1, </s> 2, words from 3."""
    vocab = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "a", "b", "c", "d", "<p>"])}
    backend = Backend(models.BPE(vocab, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<unk>", "<s>", "</s>", "<p>"])
    if opens or closes:
        single = ("<s> " if opens else "") + "$A" + (" </s>" if closes else "")
        backend.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def ids(tokenizer: Tokenizer, text: str, **options) -> list[int]:
    return tokenizer.encode([text], **options)[0].input_ids.tolist()


def test_text_is_opened_by_bos_and_closed_by_eos(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    assert ids(tokenizer, "a b") == [1, 3, 4, 2]
    assert ids(tokenizer, "") == [1, 2]


def test_stored_truncation_and_padding_are_off(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    assert ids(tokenizer, "a b c d a b") == [1, 3, 4, 5, 6, 3, 4, 2]


def test_eos_of_the_post_processor_is_not_doubled(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, closes=True), EOS_TEXT)
    assert ids(tokenizer, "a") == [1, 3, 2]
    assert ids(tokenizer, "a b c d", max_length=4, truncation="published") == [1, 3, 4, 2]


def test_forgotten_bos_is_added_unless_the_config_forbids_it(tmp_path):
    folder = write_folder(tmp_path, opens=False)
    assert ids(Tokenizer.from_folder(folder, EOS_TEXT), "a") == [1, 3, 2]
    write_folder(tmp_path, opens=False, config={"bos_token": "<s>", "add_bos_token": False})
    assert ids(Tokenizer.from_folder(folder, EOS_TEXT), "a") == [3, 2]
    write_folder(tmp_path, opens=False, config={"bos_token": None})
    assert ids(Tokenizer.from_folder(folder, EOS_TEXT), "a") == [3, 2]


def test_forgotten_bos_of_a_byte_level_tokenizer_is_added(tmp_path):
    write_folder(tmp_path, opens=False, config={"bos_token": "<s>"})
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.post_processor = processors.ByteLevel()
    backend.save(str(tmp_path / "tokenizer.json"))
    assert ids(Tokenizer.from_folder(tmp_path, EOS_TEXT), "a") == [1, 3, 2]


def test_eos_that_the_config_asks_for_is_added_once(tmp_path):
    write_folder(tmp_path, config={"eos_token": {"content": "</s>"}, "add_eos_token": True})
    plain = dataclasses.replace(EOS_TEXT, add_eos=False)
    assert ids(Tokenizer.from_folder(tmp_path, plain), "a") == [1, 3, 2]
    assert ids(Tokenizer.from_folder(tmp_path, EOS_TEXT), "a") == [1, 3, 2]


def test_special_ids_come_from_the_config_and_pad_falls_back_to_eos(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    write_folder(tmp_path, config={"pad_token": "<p>"})
    assert Tokenizer.from_folder(tmp_path, EOS_TEXT).pad_id == 7


def test_special_token_missing_from_the_vocabulary_is_an_error(tmp_path):
    write_folder(tmp_path, config={"eos_token": "<end>"})
    with pytest.raises(ValueError, match=r"'<end>' as eos_token"):
        Tokenizer.from_folder(tmp_path, EOS_TEXT)


def test_wanted_eos_that_the_tokenizer_lacks_is_an_error(tmp_path):
    write_folder(tmp_path, config={"eos_token": None})
    with pytest.raises(ValueError, match="names no eos_token"):
        Tokenizer.from_folder(tmp_path, EOS_TEXT)


def test_folder_without_a_tokenizer_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json, tokenizer\.model, vocab\.txt"):
        Tokenizer.from_folder(tmp_path, EOS_TEXT)


def test_broken_files_are_errors_that_name_them(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path, EOS_TEXT)
    write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not valid JSON"):
        Tokenizer.from_folder(tmp_path, EOS_TEXT)


def test_vocab_txt_gives_the_ids_of_tokenizer_json(tmp_path):
    (tmp_path / "vocab.txt").write_bytes((MINILM / "vocab.txt").read_bytes())
    from_words = Tokenizer.from_folder(tmp_path, minilm_l6().text)
    from_json = Tokenizer.from_folder(MINILM, minilm_l6().text)
    for text in ("Hello, World!", "naïve café", "中文 a", "", "x" * 200, "[MASK] [SEP]"):
        assert ids(from_words, text) == ids(from_json, text)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = Tokenizer.from_folder(tmp_path, minilm_l6().text)
    assert ids(cased, "Hello") != ids(from_json, "Hello")


def test_files_list_what_a_copy_of_the_model_needs():
    tokenizer = Tokenizer.from_folder(MINILM, minilm_l6().text)
    assert {path.name for path in tokenizer.files} == {
        "tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json",
    }  # fmt: skip


def test_fingerprint_tells_tokenizers_apart(tokenizer):
    again = Tokenizer.packaged(EOS_TEXT)
    bert = Tokenizer.from_folder(MINILM, minilm_l6().text)
    assert tokenizer.fingerprint == again.fingerprint != bert.fingerprint
    assert len(tokenizer.fingerprint) == 64


def test_keep_eos_keeps_the_first_tokens_and_eos(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    [encoded] = tokenizer.encode(["a b c d a"], max_length=5)
    assert encoded.input_ids.tolist() == [1, 3, 4, 5, 2]
    assert encoded.full_length == 7
    assert encoded.truncated


def test_text_of_exactly_max_length_is_whole(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    for truncation in ("keep_eos", "published", "none"):
        [encoded] = tokenizer.encode(["a b c"], max_length=5, truncation=truncation)
        assert encoded.input_ids.tolist() == [1, 3, 4, 5, 2]
        assert not encoded.truncated


def test_no_truncation_gives_every_token(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    [encoded] = tokenizer.encode(["a b " * 1000], max_length=5, truncation="none")
    assert len(encoded.input_ids) == encoded.full_length == 2002


def test_suffix_closes_the_text_and_survives_truncation(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    assert ids(tokenizer, "a b", suffix=" d") == [1, 3, 4, 6, 2]
    assert ids(tokenizer, "a b c a b c", suffix=" d", max_length=5) == [1, 3, 4, 6, 2]


def test_instruction_is_not_pooled_only_where_the_model_says_so(tmp_path):
    folder = write_folder(tmp_path)
    masked = Tokenizer.from_folder(folder, EOS_TEXT)
    unmasked = Tokenizer.from_folder(folder, dataclasses.replace(EOS_TEXT, mask_instruction=False))
    assert masked.encode(["c"], prefix="a b ")[0].pool_start == 2
    assert unmasked.encode(["c"], prefix="a b ")[0].pool_start == 0
    assert masked.encode(["c"])[0].pool_start == 0


def test_text_with_nothing_left_to_pool_pools_its_last_token(tmp_path):
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path), EOS_TEXT)
    [encoded] = tokenizer.encode(["c"], prefix="a b c d a b ", max_length=4)
    assert encoded.input_ids.tolist() == [1, 3, 4, 2]
    assert encoded.pool_start == 3


def test_lowercase_folds_prefix_and_text_but_not_eos(tokenizer):
    folded = Tokenizer.packaged(dataclasses.replace(EOS_TEXT, lowercase=True))
    upper, lower = ("SHOUT", "shout")
    assert ids(folded, upper, prefix="Ask: ") == ids(tokenizer, lower, prefix="ask: ")
    assert ids(tokenizer, upper) != ids(tokenizer, lower)


def test_order_and_number_of_texts_do_not_change_their_ids(tokenizer):
    texts = [f"text number {i} " * (i % 7) for i in range(2100)]
    together = tokenizer.encode(texts, max_length=24)
    assert len(together) == len(texts)
    for i in (0, 1, 6, 1023, 1024, 2099):
        np.testing.assert_array_equal(
            together[i].input_ids, tokenizer.encode([texts[i]], max_length=24)[0].input_ids
        )


def test_no_texts_give_no_encodings(tokenizer):
    assert tokenizer.encode([]) == []


def test_str_subclass_is_a_string(tokenizer):
    class Name(str):
        __slots__ = ()

    assert ids(tokenizer, Name("hello")) == ids(tokenizer, "hello")


@pytest.mark.parametrize(("bad", "kind"), [(None, "NoneType"), (7, "int"), (b"x", "bytes")])
def test_text_that_is_no_string_is_named_by_index_and_type(tokenizer, bad, kind):
    with pytest.raises(ValueError, match=rf"texts\[1\] must be a string; got {kind}"):
        tokenizer.encode(["fine", bad])


def test_single_string_instead_of_a_list_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="put it in a list"):
        tokenizer.encode("one string")


def test_lone_surrogate_is_named_by_index_and_character(tokenizer):
    with pytest.raises(ValueError, match=r"texts\[1\] is not valid Unicode: .*character 3"):
        tokenizer.encode(["fine", "abc\ud800"])
    with pytest.raises(ValueError, match="prefix is not valid Unicode"):
        tokenizer.encode(["fine"], prefix="\udfff")


def test_unknown_truncation_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="keep_eos, published, none; got 'left'"):
        tokenizer.encode(["a"], truncation="left")


def test_max_length_without_room_for_text_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="max_length 2 leaves no room"):
        tokenizer.encode(["a"], max_length=2)


def test_max_length_defaults_to_the_models(tokenizer):
    assert len(ids(tokenizer, "word " * 500)) == EOS_TEXT.max_length


def test_text_modules_import_no_jax():
    code = (
        "import sys, nvembed_jax.text.tokenizer, nvembed_jax.text.packing;"
        "import nvembed_jax.text.chunking, nvembed_jax.text.instructions;"
        "print([m for m in ('jax', 'flax', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nv_embed_text_rules_run_on_the_packaged_tokenizer():
    tokenizer = Tokenizer.packaged(nv_embed_v2().text)
    [encoded] = tokenizer.encode(["hello"], prefix="Instruct: x\nQuery: ")
    assert encoded.input_ids[0] == tokenizer.bos_id
    assert encoded.input_ids[-1] == tokenizer.eos_id
    assert 0 < encoded.pool_start < len(encoded.input_ids) - 1
