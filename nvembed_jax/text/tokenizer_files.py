"""A model folder's tokenizer files in, a `tokenizers` backend and its special tokens out.

`tokenizer.json` wins; else `tokenizer.model` (SentencePiece); else `vocab.txt` (BERT WordPiece).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from nvembed_jax.text import sentencepiece_bpe

MODEL_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt")
SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json")
USUAL_NAMES = {
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>", "[CLS]"),
    "eos_token": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "[SEP]"),
    "pad_token": ("<pad>", "[PAD]", "<|endoftext|>"),
}
BERT_NAMES = {"bos_token": "cls_token", "eos_token": "sep_token"}


class LoadedTokenizer(NamedTuple):
    """A backend with truncation and padding off, its special ids, and the files it came from.

    `opening` and `closing` are the ids that the post-processor puts around every text.
    """

    backend: Any
    bos_id: int | None
    eos_id: int | None
    pad_id: int
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    files: tuple[Path, ...]


def load_folder(folder: str | Path) -> LoadedTokenizer:
    """Loads the tokenizer of a model folder.

    Raises:
        FileNotFoundError: none of the known files is there; the message lists them.
        ValueError: a file is broken, or names a special token that the vocabulary lacks.
    """
    folder = Path(folder)
    found = next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no tokenizer in {folder}: looked for {', '.join(MODEL_FILES)}. "
            "Copy the files of the published model there"
        )
    config = {name: _read_json(folder / name) for name in SIDE_FILES}
    names = _declared_names(config["special_tokens_map.json"])
    names |= _declared_names(config["tokenizer_config.json"])
    backend, own_names = _read_backend(found, config["tokenizer_config.json"])
    names = own_names | names
    backend.no_truncation()
    backend.no_padding()
    files = tuple(folder / n for n in (*MODEL_FILES, *SIDE_FILES) if (folder / n).is_file())
    return _resolve(backend, names, config["tokenizer_config.json"], files)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a JSON object; it holds a {type(data).__name__}")
    return data


def _declared_names(data: dict[str, Any]) -> dict[str, str | None]:
    """bos_token, eos_token and pad_token as a config file names them; a null stays None."""
    names: dict[str, str | None] = {}
    for key in USUAL_NAMES:
        alias = BERT_NAMES.get(key, key)
        if data.get(key) is None and data.get(alias) is not None:
            names[key] = _content(data[alias])
        elif key in data:
            names[key] = _content(data[key])
    return names


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _read_backend(path: Path, config: dict[str, Any]) -> tuple[Any, dict[str, str | None]]:
    """The backend, and the special tokens that the file itself names."""
    from tokenizers import Tokenizer

    if path.name == "tokenizer.model":
        return sentencepiece_bpe.convert(path)
    if path.name == "vocab.txt":
        return _wordpiece(path, config), {}
    try:
        return Tokenizer.from_file(str(path)), {}
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"{path} is not a tokenizer.json that `tokenizers` reads: {error}"
        ) from error


def _wordpiece(path: Path, config: dict[str, Any]) -> Any:
    """BERT's tokenizer from its word list; case is folded unless the config says otherwise."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = path.read_text(encoding="utf-8").splitlines()
    vocab = {word: i for i, word in enumerate(words)}
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special = {key: _content(config.get(key)) or usual for key, usual in special.items()}
    for key, name in special.items():
        if name not in vocab:
            raise ValueError(f"{path} lacks {name!r}, the {key} of a BERT vocabulary")
    backend = Tokenizer(models.WordPiece(vocab, unk_token=special["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(  # type: ignore[assignment]
        lowercase=config.get("do_lower_case", True),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    cls, sep = special["cls_token"], special["sep_token"]
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    backend.decoder = decoders.WordPiece()  # type: ignore[assignment]
    names = [*special.values(), "[PAD]", "[MASK]"]
    backend.add_special_tokens([name for name in names if name in vocab])
    return backend


def _resolve(
    backend: Any,
    names: dict[str, str | None],
    config: dict[str, Any],
    files: tuple[Path, ...],
) -> LoadedTokenizer:
    """Finds the special ids, and makes the post-processor add what the config says it should."""
    ids = {key: _special_id(backend, key, names) for key in USUAL_NAMES}
    opening, closing = surrounding_ids(backend)
    bos, eos = ids["bos_token"], ids["eos_token"]
    # A decoder's BOS comes first: a tokenizer.json that forgot it is mended, no other is touched.
    template = (opening, closing)
    if not opening and bos is not None and _wants_bos(backend, config):
        opening = (bos,)
    if not closing and eos is not None and config.get("add_eos_token") is True:
        closing = (eos,)
    if template != (opening, closing):
        _set_template(backend, opening, closing)
    bos = opening[0] if opening else bos
    eos = closing[-1] if closing else eos
    pad = ids["pad_token"] if ids["pad_token"] is not None else eos
    return LoadedTokenizer(backend, bos, eos, 0 if pad is None else pad, opening, closing, files)


def _wants_bos(backend: Any, config: dict[str, Any]) -> bool:
    if type(backend.model).__name__ in ("WordPiece", "WordLevel"):
        return False
    return config.get("add_bos_token") is not False


def _special_id(backend: Any, key: str, names: dict[str, str | None]) -> int | None:
    if key in names:
        name = names[key]
        if name is None:
            return None
        found = backend.token_to_id(name)
        if found is None:
            raise ValueError(
                f"the tokenizer's config names {name!r} as {key}, "
                "but its vocabulary has no such token"
            )
        return found
    usual = (backend.token_to_id(name) for name in USUAL_NAMES[key])
    return next((found for found in usual if found is not None), None)


def surrounding_ids(backend: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor puts before and after every text."""
    encoding = backend.encode("a")
    body = len(backend.encode("a", add_special_tokens=False).ids)
    mask = encoding.special_tokens_mask
    before = mask.index(0) if 0 in mask else len(mask)
    return tuple(encoding.ids[:before]), tuple(encoding.ids[before + body :])


def _set_template(backend: Any, opening: tuple[int, ...], closing: tuple[int, ...]) -> None:
    from tokenizers import processors

    names = {i: backend.id_to_token(i) for i in (*opening, *closing)}
    first, last = ([names[i] for i in around] for around in (opening, closing))
    template = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *first, "$B", *last],
        special_tokens=[(name, i) for i, name in names.items()],
    )
    old = backend.post_processor
    byte_level = isinstance(old, processors.ByteLevel)  # it trims offsets and adds no tokens
    backend.post_processor = processors.Sequence([old, template]) if byte_level else template
