"""A corpus in, a folder of embeddings in parts out: resumable, by one process, many, or Ray."""
