"""`nvembed encode`: texts of a file into a file of embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options
from nvembed_jax.cli.options import InputType, Precision, Truncation

NAME = "encode"
HELP = """Encode the texts of a file into embeddings.

INPUT: .txt (a text a line), .jsonl, .csv (each also .gz), .parquet, a folder of text files, or -
for standard
input. OUT: .npy (the ids go beside it, one a line, in a .ids file), .parquet or .jsonl. It appears
only when it is complete. All of INPUT is checked before the encoding starts.

\b
Examples:
  nvembed encode notes.txt -o notes.npy
  nvembed encode corpus.jsonl.gz -o corpus.parquet --model nvidia/NV-Embed-v2 --truncate-dim 1024
  nvembed encode questions.csv --field question --input-type query -o questions.npy
  cat notes.txt | nvembed encode - -o notes.jsonl --precision int8
"""


def command(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A file, a folder, or - for standard input.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .npy, .parquet or .jsonl.")
    ],
    model: options.Model = None,
    input_type: options.InputTypeOption = None,
    task: options.Task = None,
    prompt: options.Prompt = None,
    prompt_name: options.PromptName = None,
    field: options.Field = "text",
    format: options.FormatOption = None,
    precision: options.PrecisionOption = Precision.float32,
    truncate_dim: options.TruncateDim = None,
    normalize: options.Normalize = True,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    truncation: options.TruncationOption = Truncation.keep_eos,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `HELP`."""
    encode_texts = _encoding(input_type, task, prompt, prompt_name)
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "truncation": truncation}
    encoding = {
        "precision": str(precision),
        "truncate_dim": truncate_dim,
        "normalize": normalize,
        "max_length": max_length,
        "batch_tokens": batch_tokens,
    }
    _encode_file(
        source,
        out,
        field,
        format,
        lambda: options.load_model(model, **loading),
        encode_texts,
        encoding,
    )


def _encoding(
    input_type: InputType | None, task: str | None, prompt: str | None, prompt_name: str | None
) -> Callable[..., Any]:
    """How to encode: (model, texts, **options) -> embeddings. Options that clash raise."""
    if prompt is not None and prompt_name is not None:
        raise options.usage_error(
            "--prompt and --prompt-name are two prefixes for one text; give one of them"
        )
    if prompt is not None or prompt_name is not None:
        if input_type is not None or task is not None:
            raise options.usage_error(
                "--prompt and --prompt-name stand in for --input-type and --task; give one kind"
            )
        return lambda model, texts, **kw: model.encode(
            texts, prompt=prompt, prompt_name=prompt_name, **kw
        )
    if task is not None and input_type is InputType.passage:
        raise options.usage_error(
            "--task describes queries; passages take none (use --input-type query)"
        )
    if task is not None or input_type is InputType.query:
        return lambda model, texts, **kw: model.encode_query(texts, task=task, **kw)
    return lambda model, texts, **kw: model.encode_document(texts, **kw)


def _encode_file(
    source: str,
    out: Path,
    field: str,
    format: options.Format | None,
    load: Callable[[], Any],
    encode_texts: Callable[..., Any],
    encoding: dict[str, Any],
) -> None:
    from nvembed_jax.cli.progress import encode_block, note, note_skipped, progress_bar
    from nvembed_jax.data.corpus import Corpus
    from nvembed_jax.data.writers import open_writer

    if source != "-" and out.exists() and os.path.exists(source) and os.path.samefile(source, out):
        raise ValueError(f"{out}: is the input too; name another output")
    with Corpus(source, field, format) as corpus:
        facts = corpus.scan()
        note_skipped(facts.skipped)
        with open_writer(out) as writer:
            model = load()
            with progress_bar(facts.count, "texts") as show:
                for block in _blocks(corpus.records(), encode_block()):
                    texts = [record.full_text for record in block]
                    embeddings = encode_texts(model, texts, show_progress_bar=False, **encoding)
                    writer.write([record.id for record in block], embeddings)
                    show(writer.rows)
    width, dtype = embeddings.shape[1], embeddings.dtype
    note(f"wrote {writer.rows} embeddings of {width} {dtype} values to {out}")


def _blocks(records: Iterator[Any], size: int) -> Iterator[list[Any]]:
    from itertools import islice

    while block := list(islice(records, size)):
        yield block
