"""`nvembed search`: the texts of a corpus that answer a query best."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from nvembed_jax.cli import options
from nvembed_jax.cli.thresholds import (
    CalibrationOption,
    Preset,
    PresetOption,
    choose,
    hits_above,
)

FOLDER_CHUNK_TOKENS = 200  # of a folder's files by default: a passage is found, not a whole file
DEFAULT_K = 10

NAME = "search"
HELP = """Search a corpus by meaning.

CORPUS: a folder of text files, .txt (a text a line), .jsonl, .csv (each also .gz), .parquet, or -
for standard input. Prints rank, score, id and text, the best first. With --index the embeddings are
kept, and the next search of the same corpus only encodes the query.

Long documents: --chunk-tokens splits them; a document scores as its best chunk, which is what is
shown. Files of a folder are split into 200 tokens with 40 of overlap unless you say otherwise (0:
not split).

--threshold drops results whose score is below it; --calibration takes the threshold from a file of
`nvembed calibrate` (the preset balanced, unless you say otherwise), and adds to --json how likely a
result is a match.

\b
Examples:
  nvembed search docs/ -q "how do I convert a checkpoint?"
  nvembed search corpus.jsonl.gz -q "first question" -q "second question" -k 3 --json
  nvembed search docs/ -q "latent attention" --hybrid --index ~/.cache/docs-index
  nvembed search corpus.jsonl -q "a question" --calibration calibration.json --preset high-recall
"""

K = Annotated[
    int | None, typer.Option("-k", "--top-k", min=1, help="Results a query. Default: 10.")
]
Index = Annotated[
    Path | None, typer.Option("--index", help="Folder that keeps the embeddings between searches.")
]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="Join the embeddings' scores with BM25's.")]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="A list of {rank, score, id, text}; of {query, results} for many queries."
    ),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option("--chunk-tokens", min=0, help="Split documents into chunks of so many tokens."),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        "--overlap", min=0, help="Tokens that neighbouring chunks share. Default: a fifth."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Least score of a result, a cosine; with --calibration, the threshold of the old "
        "model whose place is taken.",
    ),
]


def command(
    source: Annotated[
        str, typer.Argument(metavar="CORPUS", help="A folder, a file, or - for standard input.")
    ],
    queries: Annotated[
        list[str],
        typer.Option("--query", "-q", help="What to search for; may be given many times."),
    ],
    k: K = None,
    model: options.Model = None,
    task: options.Task = None,
    index: Index = None,
    hybrid: Hybrid = False,
    as_json: AsJson = False,
    threshold: Threshold = None,
    calibration: CalibrationOption = None,
    preset: PresetOption = None,
    chunk_tokens: ChunkTokens = None,
    overlap: Overlap = None,
    field: options.Field = "text",
    format: options.FormatOption = None,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `HELP`."""
    if any(not query.strip() for query in queries):
        raise options.usage_error("-q needs a text to search for; got an empty one")
    chunking = _chunking(source, chunk_tokens, overlap)
    chosen = choose("query-passage", threshold, calibration, preset, default_preset=Preset.balanced)
    if chosen is not None and hybrid:
        raise options.usage_error("--hybrid has fused scores, which no --threshold is meant for")
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "max_length": max_length}

    from nvembed_jax.cli.hits import print_hits
    from nvembed_jax.cli.progress import note, note_skipped
    from nvembed_jax.data.corpus import Corpus

    with Corpus(source, field, format) as corpus:
        facts = corpus.scan()  # before the model is loaded: a bad line shows at once
        note_skipped(facts.skipped)
        embedder = options.load_model(model, **loading)
        if chosen is not None:
            chosen.check(embedder, task)
        encoding = {"batch_tokens": batch_tokens, "show_progress_bar": False}
        embeddings = embedder.encode_query(queries, task=task, **encoding)
        request = _request(corpus, facts, embedder, model, chunking, encoding)
        with _opened(index, request, facts.count) as opened:
            count = min(k or DEFAULT_K, opened.num_documents)
            if k is not None and k > count:
                note(f"the corpus has {count} texts, fewer than -k {k}: all of them follow")
            if hybrid:
                found = opened.search_hybrid(embeddings, queries, count)
            else:
                found = opened.search(embeddings, count)
    if chosen is not None:
        found = hits_above(found, chosen)
    print_hits(queries, found, as_json)


class Chunking(NamedTuple):
    """Tokens of a chunk and of what neighbours share; (0, 0): documents stay whole."""

    tokens: int
    overlap: int


def _chunking(source: str, tokens: int | None, overlap: int | None) -> Chunking:
    if tokens is None:
        tokens = FOLDER_CHUNK_TOKENS if source != "-" and Path(source).is_dir() else 0
    if overlap is not None and overlap >= max(tokens, 1):
        raise options.usage_error(
            f"--overlap must be less than --chunk-tokens ({tokens}); got {overlap}"
        )
    return Chunking(tokens, tokens // 5 if overlap is None else overlap)


def _request(
    corpus: Any,
    facts: Any,
    embedder: Any,
    model: str | None,
    chunking: Chunking,
    encoding: dict[str, Any],
) -> Any:
    from nvembed_jax.cli.progress import encode_block
    from nvembed_jax.search.index import IndexRequest, whole_text

    split = _splitter(embedder, chunking) if chunking.tokens else whole_text
    return IndexRequest(
        records=corpus.records,
        digest=facts.digest,
        model=embedder,
        model_name=model or embedder.config.name,
        split=split,
        settings=chunking._asdict(),
        encoding=encoding,
        block=encode_block(),
    )


def _splitter(embedder: Any, chunking: Chunking) -> Callable[[Any], list[Any]]:
    from nvembed_jax.config import TextConfig
    from nvembed_jax.search.index import Passage
    from nvembed_jax.text.chunking import chunk_tokens
    from nvembed_jax.text.tokenizer import Tokenizer

    tokenizer = getattr(embedder, "tokenizer", None)
    if tokenizer is None:  # a remote model: its tokens are not known, ours are about as long
        tokenizer = Tokenizer.packaged(TextConfig())
    elif chunking.tokens > embedder.max_length:
        raise ValueError(
            f"--chunk-tokens {chunking.tokens} is more than the {embedder.max_length} tokens "
            f"that the model reads"
        )

    def split(record: Any) -> list[Any]:
        text = record.full_text
        chunks = chunk_tokens(tokenizer, text, chunking.tokens, chunking.overlap)
        return [Passage(record.id, chunk.text) for chunk in chunks if chunk.text.strip()]

    return split


@contextmanager
def _opened(index: Path | None, request: Any, texts: int) -> Iterator[Any]:
    """The index in the folder asked for, or one that is gone when the search is done."""
    from nvembed_jax.cli.progress import note, progress_bar
    from nvembed_jax.search.index import build_index, open_index

    with progress_bar(texts, "texts") as show:
        request = replace(request, progress=show)
        if index is not None:
            opened, reason = open_index(index, request)
            if reason not in ("", "new"):
                note(f"{index}: made anew, because {reason}")
            yield opened
            return
        with tempfile.TemporaryDirectory(prefix="nvembed-") as folder:
            yield build_index(Path(folder, "index"), request)
