"""A static embedder of the same bytes as nvembed-tiny, distilled from the same labels for longer.

    python experiments/016_nvembed_tiny/control.py --work DIR

DIR: where build.py has made sets, teacher and labels. What nvembed-tiny spends on blocks goes into
the table here: all pieces that the texts use, and the words most frequent in them that are written
in several. 9.1 M parameters both. Leaves DIR/control/static/model.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import build
from tokenizers import Tokenizer
from tqdm import tqdm

VOCABULARY = 35_600
PIECES = 27_880  # the others are words
CHANGES = {
    "model.overrides.backbone.vocab_size": str(VOCABULARY),
    "stage1.steps": "12000",
}


def split_words(work: Path, backend: Tokenizer) -> list[str]:
    """The most frequent words of the texts that have no piece of their own."""
    counts: Counter[str] = Counter()
    for text in tqdm(build.texts_of(work / "sets"), desc="counting words"):
        counts.update(re.findall(r"\w+", backend.normalizer.normalize_str(text)))
    several = (word for word, _ in counts.most_common() if len(backend.model.tokenize(word)) > 1)
    return [word for word, _ in zip(several, range(VOCABULARY - PIECES), strict=False)]


def add_words(work: Path) -> None:
    """Makes the words pieces of the tokenizer."""
    path = work / "tokenizer" / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    if backend.get_vocab_size() == VOCABULARY:
        return
    words = split_words(work, backend)
    document = json.loads(backend.to_str())
    vocab = document["model"]["vocab"]
    vocab |= {word: PIECES + i for i, word in enumerate(words)}
    path.write_text(json.dumps(document, ensure_ascii=False), "utf8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--teacher", default=build.TEACHER, help="default: %(default)s")
    args = parser.parse_args()
    whole = args.work.resolve()
    work = whole / "control"
    work.mkdir(exist_ok=True)
    for name in ("sets", "teacher", "labels"):
        if not (work / name).exists():
            (work / name).symlink_to(whole / name)
    pieces = {"model.overrides.backbone.vocab_size": str(PIECES)}
    build.make_tokenizer(work, args.teacher, build.STATIC, pieces)
    add_words(work)
    build.make_table(work, build.STATIC, CHANGES)
    build.run(build.STATIC, work / "sets", work / "static", work / "table", work, CHANGES)


if __name__ == "__main__":
    main()
