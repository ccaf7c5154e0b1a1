"""Data in and out: records (texts from files and folders) and writers (embeddings to files)."""

from nvembed_jax.data.records import Record, read_records
from nvembed_jax.data.writers import EmbeddingWriter, open_writer

__all__ = ["EmbeddingWriter", "Record", "open_writer", "read_records"]
