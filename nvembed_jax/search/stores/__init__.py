"""Vector stores behind one protocol: FAISS in a folder, Milvus, Qdrant, Weaviate, LanceDB."""

from nvembed_jax.search.stores.filters import Condition, parse_condition
from nvembed_jax.search.stores.location import KINDS
from nvembed_jax.search.stores.opening import make_store, open_store
from nvembed_jax.search.stores.schema import EMBEDDING_TYPES, StoreSchema
from nvembed_jax.search.stores.store import Match, Store

__all__ = [
    "EMBEDDING_TYPES",
    "KINDS",
    "Condition",
    "Match",
    "Store",
    "StoreSchema",
    "make_store",
    "open_store",
    "parse_condition",
]
