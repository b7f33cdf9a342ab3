"""Multimodal dense retrieval: CLIP documents, a FAISS memory bank, and CM3Leon's strategy."""

import lazy_loader

# A name's module is imported when the name is first used: a command pays for what it uses.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
