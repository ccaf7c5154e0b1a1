"""SentencePiece `tokenizer.model` in, a `tokenizers` backend with the same ids out.

SentencePiece merges the pair whose union has the best score, leftmost first; the order of the merge
list below says the same. The protobuf is read by hand: a dozen fields are all that is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPACE = "▁"  # U+2581, SentencePiece's stand-in for a space
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2


@dataclass
class SentencePieceModel:
    """What a `tokenizer.model` says, as far as encoding needs it."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)  # text, score, type
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    whitespace_as_suffix: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    has_character_map: bool = False
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


def read_model(path: str | Path) -> SentencePieceModel:
    """Reads a serialised SentencePiece model. Raises ValueError when the file is not one."""
    path = Path(path)
    try:
        model = _parse_model(path.read_bytes())
    except (IndexError, struct.error, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is not a SentencePiece model, or is truncated: {error}"
        ) from error
    if not model.pieces:
        raise ValueError(f"{path} is not a SentencePiece model: it holds no pieces")
    return model


def convert(path: str | Path) -> tuple[Any, dict[str, str | None]]:
    """A `tokenizers.Tokenizer` that gives SentencePiece's ids, BOS first where the model has one.

    With it come the model's names of `bos_token`, `eos_token` and `pad_token` (None: it has none).

    A special token written out in a text ("</s>") becomes that token, as with every fast tokenizer;
    SentencePiece itself would spell it in characters.

    Raises:
        ValueError: the model uses a feature that cannot be converted exactly.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, processors

    model = read_model(path)
    _refuse_unsupported(model, str(path))
    backend = Tokenizer(_bpe(model, str(path)))
    backend.normalizer = _normalizer(model)  # type: ignore[assignment]
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(steps)  # type: ignore[assignment]
    special = [text for text, _, kind in model.pieces if kind in (UNKNOWN, CONTROL)]
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    user = [text for text, _, kind in model.pieces if kind == USER_DEFINED]
    backend.add_tokens([AddedToken(text, normalized=False) for text in user])
    if model.bos_id >= 0:
        bos = model.pieces[model.bos_id][0]
        backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, model.bos_id)]
        )
    named = {"bos_token": model.bos_id, "eos_token": model.eos_id, "pad_token": model.pad_id}
    return backend, {name: model.pieces[i][0] if i >= 0 else None for name, i in named.items()}


def _refuse_unsupported(model: SentencePieceModel, path: str) -> None:
    user_defined = any(kind == USER_DEFINED for _, _, kind in model.pieces)
    reasons = {
        "it is no BPE model": model.model_type != BPE,
        "it normalises Unicode by a character map": model.has_character_map,
        "it writes spaces as suffixes": model.whitespace_as_suffix,
        "it does not escape spaces": not model.escape_whitespaces,
        "it has unused pieces": any(kind == UNUSED for _, _, kind in model.pieces),
        "it has user-defined pieces and a dummy prefix": user_defined and model.add_dummy_prefix,
    }
    for reason, applies in reasons.items():
        if applies:
            raise ValueError(
                f"{path} cannot be converted exactly: {reason}. "
                "Put the model's tokenizer.json beside it"
            )


def _bpe(model: SentencePieceModel, path: str) -> Any:
    from tokenizers import models

    vocab = {text: i for i, (text, _, _) in enumerate(model.pieces)}
    if len(vocab) != len(model.pieces):
        raise ValueError(f"{path} cannot be converted: it has two pieces with the same text")
    return models.BPE(
        vocab=vocab,
        merges=_merges(model, path),
        unk_token=model.pieces[model.unk_id][0],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _merges(model: SentencePieceModel, path: str) -> list[tuple[str, str]]:
    """Every way to make a piece of two: best score first, then by id, longest left part first."""
    normal = {text for text, _, kind in model.pieces if kind == NORMAL}
    orphans = {char for text in normal for char in text} - normal
    if orphans:
        raise ValueError(
            f"{path} cannot be converted exactly: {len(orphans)} characters stand in pieces but "
            f"are no pieces themselves, for example {min(orphans)!r}"
        )
    ordered = sorted(
        (-score, i, text) for i, (text, score, kind) in enumerate(model.pieces) if kind == NORMAL
    )
    return [
        (text[:cut], text[cut:])
        for _, _, text in ordered
        for cut in range(len(text) - 1, 0, -1)
        if text[:cut] in normal and text[cut:] in normal
    ]


def _normalizer(model: SentencePieceModel) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(rf"\A +|[ {SPACE}]+\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if model.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps)


def _parse_model(data: bytes) -> SentencePieceModel:
    model = SentencePieceModel()
    for number, value in _fields(data):
        if number == 1:
            piece: dict[int, Any] = dict(_fields(value))
            score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
            model.pieces.append((piece.get(1, b"").decode(), score, piece.get(3, NORMAL)))
        elif number == 2:
            trainer: dict[int, Any] = dict(_fields(value))
            model.model_type = trainer.get(3, UNIGRAM)
            model.whitespace_as_suffix = bool(trainer.get(24, 0))
            model.byte_fallback = bool(trainer.get(35, 0))
            model.unk_id = _signed(trainer.get(40, 0))
            model.bos_id = _signed(trainer.get(41, 1))
            model.eos_id = _signed(trainer.get(42, 2))
            model.pad_id = _signed(trainer.get(43, -1))
        elif number == 3:
            spec: dict[int, Any] = dict(_fields(value))
            model.has_character_map = bool(spec.get(2))
            model.add_dummy_prefix = bool(spec.get(3, 1))
            model.remove_extra_whitespaces = bool(spec.get(4, 1))
            model.escape_whitespaces = bool(spec.get(5, 1))
    return model


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a protobuf message: ints for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, at = _varint(data, at)
            if size is None or at + size > len(data):
                raise IndexError(f"field {key >> 3} at byte {at} does not fit")
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
