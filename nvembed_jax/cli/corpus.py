"""`nvembed corpus`: a corpus of any size into a folder of embeddings, on many devices."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options
from nvembed_jax.cli.encode import _encoding
from nvembed_jax.cli.options import InputType, Truncation

NAME = "corpus"
HELP = """Encode a corpus of any size into a folder of embeddings.

INPUT: .jsonl, .csv, .txt (each also .gz), .parquet; a folder of .jsonl(.gz) or .parquet files,
which are read in the order of their names; or a folder of text files. OUTDIR gets files
part-NNNNN.parquet (id, embedding) and manifest.json, which says what they were made of. A part
appears only when it is complete. Killed at any moment, the same command goes on where it was, and
refuses to if the model, the texts or the settings are others.

Several processes: --workers on one machine (by default one a GPU). Several machines that share
OUTDIR: --shard-index and --num-shards, say from a job array, or --backend ray.

\b
Examples:
  nvembed corpus corpus.jsonl.gz vectors/
  nvembed corpus corpus.parquet vectors/ --model nvidia/NV-Embed-v2 --precision float16 --workers 8
  nvembed corpus books/ vectors/ --chunk-tokens 512 --overlap 64
  nvembed corpus corpus/ vectors/ --shard-index $SLURM_ARRAY_TASK_ID --num-shards 16
"""


class Backend(StrEnum):
    """Who runs the workers."""

    local = "local"
    ray = "ray"


class PartFormat(StrEnum):
    """Files of embeddings."""

    parquet = "parquet"
    npy = "npy"


class StoredPrecision(StrEnum):
    """How embeddings are stored."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    uint8 = "uint8"
    binary = "binary"
    ubinary = "ubinary"


Input = Annotated[str, typer.Argument(metavar="INPUT", help="A file or a folder.")]
OutDir = Annotated[Path, typer.Argument(metavar="OUTDIR", help="The folder of the parts.")]
PrecisionOption = Annotated[
    StoredPrecision, typer.Option("--precision", help="How embeddings are stored.")
]
PartFormatOption = Annotated[
    PartFormat,
    typer.Option("--part-format", help="Of the parts; npy: ids beside them in .ids files."),
]
PartTexts = Annotated[
    int | None,
    typer.Option(
        "--part-texts", min=1, help="Texts a part. Default: 64 to 16,384, by the number of texts."
    ),
]
ChunkTokens = Annotated[
    int, typer.Option("--chunk-tokens", min=0, help="Split texts into chunks of so many tokens.")
]
Overlap = Annotated[
    int | None,
    typer.Option(
        "--overlap", min=0, help="Tokens that neighbouring chunks share. Default: a fifth."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes, or Ray actors. Default: one a GPU, else 1."),
]
BackendOption = Annotated[
    Backend, typer.Option("--backend", help="Processes of this machine, or a Ray cluster.")
]
ShardIndex = Annotated[
    int | None, typer.Option("--shard-index", min=0, help="Which share of the parts, from 0.")
]
NumShards = Annotated[
    int | None, typer.Option("--num-shards", min=1, help="How many shares there are.")
]


def command(
    source: Input,
    outdir: OutDir,
    model: options.Model = None,
    input_type: options.InputTypeOption = None,
    task: options.Task = None,
    prompt: options.Prompt = None,
    prompt_name: options.PromptName = None,
    field: options.Field = "text",
    format: options.FormatOption = None,
    precision: PrecisionOption = StoredPrecision.float32,
    part_format: PartFormatOption = PartFormat.parquet,
    part_texts: PartTexts = None,
    chunk_tokens: ChunkTokens = 0,
    overlap: Overlap = None,
    workers: Workers = None,
    backend: BackendOption = Backend.local,
    shard_index: ShardIndex = None,
    num_shards: NumShards = None,
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
    half = precision is StoredPrecision.float16
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "truncation": truncation}
    method, prefix = _method(input_type, task, prompt, prompt_name)
    encoding = {
        "precision": "float32" if half else str(precision),
        "truncate_dim": truncate_dim,
        "normalize": normalize,
        "max_length": max_length,
        "batch_tokens": batch_tokens,
    }
    job = {
        "load": partial(options.load_model, model, **loading),
        "model_name": model or "",
        "method": method,
        "options": prefix | encoding,
        "half": half,
        "suffix": f".{part_format}",
        "part_texts": part_texts,
        **_chunking(chunk_tokens, overlap, part_format),
        **_shard(shard_index, num_shards),
    }
    _encode(source, field, format, outdir, job, str(backend), workers)


def _method(
    input_type: InputType | None, task: str | None, prompt: str | None, prompt_name: str | None
) -> tuple[str, dict[str, Any]]:
    """The model's method and its options, as names: they are sent to other processes."""
    _encoding(input_type, task, prompt, prompt_name)  # raises for options that clash
    if prompt is not None or prompt_name is not None:
        return "encode", {"prompt": prompt, "prompt_name": prompt_name}
    if task is not None or input_type is InputType.query:
        return "encode_query", {"task": task}
    return "encode_document", {}


def _chunking(tokens: int, overlap: int | None, part_format: PartFormat) -> dict[str, int]:
    if overlap is not None and overlap >= max(tokens, 1):
        raise options.usage_error(
            f"--overlap must be less than --chunk-tokens ({tokens}); got {overlap}"
        )
    if tokens and part_format is PartFormat.npy:
        raise options.usage_error(
            "--chunk-tokens needs parquet parts: .npy has no room for where a chunk stands"
        )
    return {"chunk_tokens": tokens, "overlap": tokens // 5 if overlap is None else overlap}


def _shard(index: int | None, shards: int | None) -> dict[str, int]:
    if (index is None) != (shards is None):
        raise options.usage_error("--shard-index and --num-shards are given together")
    if index is None or shards is None:
        return {}
    if index >= shards:
        raise options.usage_error(
            f"--shard-index must be 0 to {shards - 1}, below --num-shards; got {index}"
        )
    return {"shard_index": index, "num_shards": shards}


def _encode(
    source: str,
    field: str,
    format: options.Format | None,
    outdir: Path,
    job: dict[str, Any],
    backend: str,
    workers: int | None,
) -> None:
    from nvembed_jax.cli.progress import note, note_skipped
    from nvembed_jax.corpus.parts import CorpusJob
    from nvembed_jax.corpus.shards import encode_corpus
    from nvembed_jax.corpus.source import Source

    texts = Source(path=source, field=field, format=None if format is None else str(format))
    job_of_texts = CorpusJob(source=texts, folder=outdir, **job)
    report = encode_corpus(job_of_texts, backend=backend, workers=workers, say=note)
    note_skipped(report.skipped)
    if not report.complete:
        note(
            f"encoded {report.encoded:,} texts into {outdir}; {report.missing} of {report.parts} "
            f"parts, of other shards, are not there yet"
        )
    elif report.encoded:
        note(f"encoded {report.encoded:,} texts; all {report.parts} parts are in {outdir}")
    else:
        note(f"nothing to do: all {report.parts} parts of {report.texts:,} texts are in {outdir}")
