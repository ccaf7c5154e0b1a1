"""Trains the packaged tokenizer, and measures vocabulary sizes and ways to split words.

    python experiments/000_tokenizer/run.py DATA_FOLDER [--out FOLDER] [--measure]

The same data give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

HERE = Path(__file__).parent
OUT = HERE.parent.parent / "nvembed_jax" / "text" / "data"
# Sets whose licence lets us ship what is trained on them; only their training rows are read.
SETS = (
    "arxiv_title_abstract", "banking77", "disfl_qa", "fever", "hwu64", "medquad", "mnli_triples",
    "msdocs_sections", "open_trivia", "openstax", "php_functions", "policy_qa",
    "powershell_cmdlets", "python_peps", "qnli", "scitldr", "snips", "snli_triples",
    "squad_paragraphs", "squad_sentences", "til", "tldr", "wordnet_definitions",
)  # fmt: skip
CHARACTERS_A_SET = 2_000_000  # so that no set dominates
HELD_OUT_EVERY = 50
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
SPACE = "▁"
ALPHABET = 256  # characters with a piece of their own; all others are spelt in bytes
SPLITS = {
    "words": [],
    "words, digits": [pre_tokenizers.Digits(individual_digits=True)],
    "words, digits, punctuation": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}▁]"), "isolated"),
    ],
}
CHOSEN_SIZE, CHOSEN_SPLIT = 8192, "words, digits"


def main() -> None:
    """Parses the command line, trains, and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of data sets")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--measure", action="store_true", help="write results.jsonl as well")
    args = parser.parse_args()
    train, held_out = read_texts(args.data)
    print(f"{len(train):,} training texts, {sum(map(len, train)):,} characters")
    if args.measure:
        measure(train, held_out)
    save(build(train, CHOSEN_SIZE, CHOSEN_SPLIT), args.out)


def read_texts(data: Path) -> tuple[list[str], list[str]]:
    """(training texts, held-out texts) of all sets, in a fixed order."""
    train: list[str] = []
    held_out: list[str] = []
    for name in SETS:
        used = 0
        for i, text in enumerate(rows_of(data / name)):
            if i % HELD_OUT_EVERY == 0:
                held_out.append(text)
            else:
                train.append(text)
            used += len(text)
            if used > CHARACTERS_A_SET:
                break
    return train, held_out


def rows_of(folder: Path) -> Iterator[str]:
    """Queries and passages of training pairs, and the training rows of a classification set."""
    files = [folder / "pairs_train.jsonl.gz", folder / "classification.jsonl.gz"]
    present = [path for path in files if path.is_file()]
    if not present:
        raise FileNotFoundError(f"{folder} has none of {', '.join(path.name for path in files)}")
    for path in present:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row.get("split", "train") != "train":
                    continue
                positive = row.get("positive", [])
                positives = [positive] if isinstance(positive, str) else positive
                yield from (t for t in (row.get("query"), row.get("text"), *positives) if t)


def splitter(split: str) -> Any:
    """The pre-tokenizer: every word with the space before it, then digits and punctuation apart."""
    words = pre_tokenizers.Split(SPACE, "merged_with_next")
    return pre_tokenizers.Sequence([words, *SPLITS[split]])


def normalizer() -> Any:
    """Mistral's: a space in front, and every space written out. No Unicode normalisation."""
    steps = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    return normalizers.Sequence(steps)


def alphabet_of(texts: list[str]) -> list[str]:
    """ASCII and the most frequent other characters, in a fixed order."""
    counts = Counter(char for text in texts for char in text)
    ascii_printable = [chr(c) for c in range(33, 127)]
    skip = {*ascii_printable, SPACE}
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    others = [char for char in ranked if char not in skip and char.isprintable() and char != " "]
    return [*ascii_printable, SPACE, *others[: ALPHABET - len(ascii_printable) - 1]]


def build(texts: list[str], size: int, split: str) -> Tokenizer:
    """Trains a byte-fallback BPE: unk 0, bos 1, eos 2, then 256 bytes, then pieces of text."""
    alphabet = alphabet_of(texts)
    # The trainer drops other characters, which joins their neighbours, and breaks ties at random.
    other = re.compile(f"[^{re.escape(''.join(alphabet))}]")
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizer()
    learner.pre_tokenizer = splitter(split)
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL) - len(BYTES),
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        max_token_length=16,
        show_progress=False,
    )
    learner.train_from_iterator((other.sub(" ", text) for text in texts), trainer)
    state = json.loads(learner.to_str())["model"]
    learned = sorted(state["vocab"], key=state["vocab"].get)
    vocab = {piece: i for i, piece in enumerate([*SPECIAL, *BYTES, *learned])}
    merges = [tuple(merge) for merge in state["merges"]]
    return finished(vocab, merges, split)


def finished(vocab: dict[str, int], merges: list[tuple[str, str]], split: str) -> Tokenizer:
    """The tokenizer around a vocabulary: byte fallback, BOS first, and a decoder."""
    backend = Tokenizer(
        models.BPE(
            vocab=vocab, merges=merges, unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True
        )
    )
    backend.normalizer = normalizer()
    backend.pre_tokenizer = splitter(split)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    bos = SPECIAL[1]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, vocab[bos])],
    )
    return backend


def measure(train: list[str], held_out: list[str]) -> None:
    """Tokens a word on held-out text, by vocabulary size and way to split; into results.jsonl."""
    words = sum(len(text.split()) for text in held_out)
    bytes_in = sum(len(text.encode()) for text in held_out)
    cases = [(size, CHOSEN_SPLIT) for size in (2048, 4096, 8192, 16384)]
    cases += [(CHOSEN_SIZE, split) for split in SPLITS if split != CHOSEN_SPLIT]
    with (HERE / "results.jsonl").open("w", encoding="utf-8") as out:
        for size, split in cases:
            begun = time.perf_counter()
            backend = build(train, size, split)
            seconds = time.perf_counter() - begun
            encodings = backend.encode_batch(held_out, add_special_tokens=False)
            counts = [0] * backend.get_vocab_size()
            for encoding in encodings:
                for i in encoding.ids:
                    counts[i] += 1
            tokens = sum(counts)
            row = {
                "pieces": backend.get_vocab_size(),
                "split": split,
                "tokens_per_word": round(tokens / words, 3),
                "bytes_per_token": round(bytes_in / tokens, 3),
                "byte_tokens_percent": round(100 * sum(counts[3:259]) / tokens, 3),
                "pieces_never_used_percent": round(
                    100 * counts[259:].count(0) / len(counts[259:]), 1
                ),
                "file_kb": round(len(backend.to_str().encode()) / 1000),
                "training_seconds": round(seconds, 1),
            }
            out.write(json.dumps(row) + "\n")
            print(row)


def save(backend: Tokenizer, out: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    out.mkdir(parents=True, exist_ok=True)
    backend.save(str(out / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[0],
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[2],
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2) + "\n"
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")
    print(f"wrote {out / 'tokenizer.json'}, {(out / 'tokenizer.json').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
