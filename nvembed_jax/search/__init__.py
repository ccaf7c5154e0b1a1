"""Exact search: codes (less memory), topk, hybrid (with BM25) and index (folders on disk)."""
