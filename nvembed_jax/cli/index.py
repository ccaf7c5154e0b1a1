"""`nvembed index`: a corpus into a vector store, and searching, deleting and looking there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options
from nvembed_jax.cli.search import AsJson, ChunkTokens, Overlap, _chunking, _splitter

NAME = "index"
HELP = """Keep a corpus in a vector store, and search it.

STORE is a folder (faiss, milvus, qdrant, lancedb), or http://HOST:PORT/COLLECTION of a server
(milvus, qdrant, weaviate; --kind says which). The API key of a server is read from
NVEMBED_STORE_KEY. A store is refused to any model but the one that it was built with.
"""
BUILD_HELP = """Encode a corpus into a store.

CORPUS: a folder of text files, .txt (a text a line), .jsonl, .csv (each also .gz), .parquet, or -
for standard input. Texts whose ids are in the store are replaced where they differ, others are
added, and none is removed. Killed at any moment, the same command goes on where it was.

\b
Examples:
  nvembed index build corpus.jsonl.gz store/
  nvembed index build docs/ store/ --chunk-tokens 256 --overlap 32
  nvembed index build news.jsonl store/ --payload-fields lang,year:int --embedding-type int8
  nvembed index build news.parquet http://localhost:6333/news --kind qdrant -m nvidia/NV-Embed-v2
"""
SEARCH_HELP = """Search a store: rank, score, id and text, the best first.

--filter FIELD=VALUE, FIELD<VALUE (or <=, >, >=), FIELD in VALUE,VALUE; several must all hold. A
document scores as its best chunk, which is what is shown.

\b
Examples:
  nvembed index search store/ -q "how do I convert a checkpoint?"
  nvembed index search store/ -q "elections" --filter lang=en --filter "year>=2020" -k 5 --json
  nvembed index search store/ -q "elections" --filter "lang in en,de" -m nvidia/NV-Embed-v2
"""
DELETE_HELP = """Remove texts, with all their chunks, from a store.

\b
Examples:
  nvembed index delete store/ doc-17 doc-18
  nvembed index delete http://localhost:19530/news doc-17 --kind milvus
"""
INFO_HELP = """Show what a store holds, and which model it belongs to.

\b
Examples:
  nvembed index info store/
  nvembed index info http://localhost:6333/news --kind qdrant --json
"""


class Kind(StrEnum):
    """Stores."""

    faiss = "faiss"
    milvus = "milvus"
    qdrant = "qdrant"
    weaviate = "weaviate"
    lancedb = "lancedb"


class EmbeddingType(StrEnum):
    """How a faiss store holds vectors in memory."""

    float = "float"
    int8 = "int8"
    binary = "binary"


StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="A folder, or http://HOST:PORT/COLLECTION.")
]
KindOption = Annotated[
    Kind | None, typer.Option("--kind", help="Default: what the folder holds; faiss for a new one.")
]
EmbeddingTypeOption = Annotated[
    EmbeddingType,
    typer.Option(
        "--embedding-type",
        help="Of the vectors in memory, in a faiss store; codes are scored again with floats.",
    ),
]
PayloadFields = Annotated[
    str | None,
    typer.Option(
        "--payload-fields",
        metavar="NAME[:TYPE],...",
        help="Keys or columns to keep for filters; types: str, int, float, bool.",
    ),
]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", help="Condition on a payload field; may be given many times."),
]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command("build", help=BUILD_HELP, no_args_is_help=True)
def build(
    source: Annotated[
        str, typer.Argument(metavar="CORPUS", help="A folder, a file, or - for standard input.")
    ],
    where: StoreArgument,
    kind: KindOption = None,
    model: options.Model = None,
    chunk_tokens: ChunkTokens = None,
    overlap: Overlap = None,
    embedding_type: EmbeddingTypeOption = EmbeddingType.float,
    payload_fields: PayloadFields = None,
    field: options.Field = "text",
    format: options.FormatOption = None,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `BUILD_HELP`."""
    chunking = _chunking(source, chunk_tokens, overlap)
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "max_length": max_length}

    from nvembed_jax.cli.progress import note, note_skipped
    from nvembed_jax.data.corpus import Corpus
    from nvembed_jax.search.stores import StoreSchema, make_store
    from nvembed_jax.search.stores.location import parse_location

    parse_location(where, kind)  # before the corpus is read: a wrong place shows at once
    with Corpus(source, field, format) as corpus:
        facts = corpus.scan()
        note_skipped(facts.skipped)
        fields = _field_types(source, format, payload_fields)
        embedder = options.load_model(model, **loading)
        schema = StoreSchema(
            model_name=model or embedder.config.name,
            fingerprint=embedder.fingerprint,
            dim=embedder.embed_dim,
            fields=fields,
            embedding_type=str(embedding_type),
            settings=chunking._asdict(),
        )
        with make_store(where, schema, kind) as store:
            records = _with_payloads(corpus, source, format, fields)
            encoding = {"batch_tokens": batch_tokens, "show_progress_bar": False}
            report = _build(store, records, facts.count, embedder, chunking, encoding)
            count = store.count()
    note(
        f"{where}: {report.texts:,} texts, {report.unchanged:,} of them there already; encoded "
        f"{report.encoded:,} passages of {count:,} in the store"
    )


@app.command("search", help=SEARCH_HELP, no_args_is_help=True)
def search(
    where: StoreArgument,
    queries: Annotated[
        list[str],
        typer.Option("--query", "-q", help="What to search for; may be given many times."),
    ],
    k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="Results a query.")] = 10,
    filters: Filters = None,
    kind: KindOption = None,
    model: options.Model = None,
    task: options.Task = None,
    as_json: AsJson = False,
    max_length: options.MaxLength = None,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `SEARCH_HELP`."""
    if any(not query.strip() for query in queries):
        raise options.usage_error("-q needs a text to search for; got an empty one")
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "max_length": max_length}

    from nvembed_jax.cli.hits import print_hits
    from nvembed_jax.cli.progress import note
    from nvembed_jax.search.stores import open_store, parse_condition
    from nvembed_jax.search.stores.documents import search_documents
    from nvembed_jax.search.stores.schema import check_model

    with open_store(where, kind) as store:
        fields = store.schema.all_fields
        conditions = [parse_condition(text, fields) for text in filters or []]
        embedder = options.load_model(model, **loading)
        name = model or embedder.config.name
        check_model(store.schema, embedder.fingerprint, name, where)
        vectors = embedder.encode_query(queries, task=task, show_progress_bar=False)
        found = search_documents(store, vectors, k, conditions)
    fewest = min(map(len, found))
    if fewest < k:
        note(f"only {fewest} texts {'meet the filters' if conditions else 'are in the store'}")
    print_hits(queries, found, as_json)


@app.command("delete", help=DELETE_HELP, no_args_is_help=True)
def delete(
    where: StoreArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the texts.")],
    kind: KindOption = None,
) -> None:
    """See `DELETE_HELP`."""
    from nvembed_jax.cli.progress import note
    from nvembed_jax.search.stores import open_store
    from nvembed_jax.search.stores.documents import delete_documents

    with open_store(where, kind) as store:
        before = store.count()
        missing = delete_documents(store, ids)
        count = store.count()
    note(f"{where}: removed {before - count:,} passages; {count:,} are left")
    if missing:
        raise ValueError(f"{where}: has no text with the id {', '.join(map(repr, missing))}")


@app.command("info", help=INFO_HELP, no_args_is_help=True)
def info(
    where: StoreArgument,
    kind: KindOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As an object.")] = False,
) -> None:
    """See `INFO_HELP`."""
    from nvembed_jax.search.stores import open_store

    with open_store(where, kind) as store:
        schema = store.schema
        facts = {
            "kind": store.kind,
            "model": schema.model_name,
            "fingerprint": schema.fingerprint,
            "dim": schema.dim,
            "embedding_type": schema.embedding_type,
            "passages": store.count(),
            "chunk_tokens": schema.settings.get("tokens", 0),
            "overlap": schema.settings.get("overlap", 0),
            "payload_fields": dict(schema.fields),
        }
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key}:{type_}" for key, type_ in value.items()) or "none"
        print(f"{name.replace('_', ' ') + ':':<16} {value}")


def _field_types(source: str, format: str | None, wanted: str | None) -> dict[str, str]:
    from nvembed_jax.search.stores.payloads import field_types, parse_fields, payload_rows

    if wanted is None:
        return {}
    return field_types(payload_rows(source, format), parse_fields(wanted))


def _with_payloads(
    corpus: Any, source: str, format: str | None, fields: Mapping[str, str]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    from nvembed_jax.search.stores.payloads import payload, payload_rows

    if not fields:
        yield from ((record, {}) for record in corpus.records())
        return
    rows = payload_rows(source, format)
    for record, row in zip(corpus.records(), rows, strict=True):
        yield record, payload(row, fields)


def _build(
    store: Any, records: Any, count: int, embedder: Any, chunking: Any, encoding: dict[str, Any]
) -> Any:
    from nvembed_jax.cli.progress import encode_block, progress_bar
    from nvembed_jax.search.index import whole_text
    from nvembed_jax.search.stores.documents import BuildRequest, build_documents

    with progress_bar(count, "texts") as show:
        request = BuildRequest(
            records=records,
            model=embedder,
            encoding=encoding,
            split=_splitter(embedder, chunking) if chunking.tokens else whole_text,
            chunked=chunking.tokens > 0,
            block=encode_block(),
            progress=show,
        )
        return build_documents(store, request)
