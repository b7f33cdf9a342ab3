"""Multimodal dense retrieval: CLIP documents, a FAISS memory bank, and CM3Leon's strategy.

Names are imported on first use, so that `import cm3_retrieval` loads neither FAISS nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cm3_retrieval.bank.documents import document_vectors, encode_documents, search_documents
    from cm3_retrieval.bank.memory_bank import MemoryBank
    from cm3_retrieval.clip.encoder import ClipEncoder
    from cm3_retrieval.clip.training import train_clip
    from cm3_retrieval.clip.training_config import ClipTrainingConfig
    from cm3_retrieval.contract import check_encoder
    from cm3_retrieval.index.config import IndexConfig
    from cm3_retrieval.index.exact import build_index, search
    from cm3_retrieval.index.plan import expected_bytes, plan_index
    from cm3_retrieval.interface import INTERFACE_VERSION, Encoder
    from cm3_retrieval.neighbours.building import build_neighbour_table
    from cm3_retrieval.neighbours.context import inference_context, training_context
    from cm3_retrieval.neighbours.strategy import RetrievalConfig, drop_query_tokens, select
    from cm3_retrieval.neighbours.table import NeighbourTable

__all__ = [
    "INTERFACE_VERSION",
    "ClipEncoder",
    "ClipTrainingConfig",
    "Encoder",
    "IndexConfig",
    "MemoryBank",
    "NeighbourTable",
    "RetrievalConfig",
    "build_index",
    "build_neighbour_table",
    "check_encoder",
    "document_vectors",
    "drop_query_tokens",
    "encode_documents",
    "expected_bytes",
    "inference_context",
    "plan_index",
    "search",
    "search_documents",
    "select",
    "train_clip",
    "training_context",
]

_NAMES_IN = {
    "bank.documents": ("document_vectors", "encode_documents", "search_documents"),
    "bank.memory_bank": ("MemoryBank",),
    "clip.encoder": ("ClipEncoder",),
    "clip.training": ("train_clip",),
    "clip.training_config": ("ClipTrainingConfig",),
    "contract": ("check_encoder",),
    "index.config": ("IndexConfig",),
    "index.exact": ("build_index", "search"),
    "index.plan": ("expected_bytes", "plan_index"),
    "interface": ("INTERFACE_VERSION", "Encoder"),
    "neighbours.building": ("build_neighbour_table",),
    "neighbours.context": ("inference_context", "training_context"),
    "neighbours.strategy": ("RetrievalConfig", "drop_query_tokens", "select"),
    "neighbours.table": ("NeighbourTable",),
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
