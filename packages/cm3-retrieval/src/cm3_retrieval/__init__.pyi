"""The public names; `__init__.py` imports each when it is first used."""

from .bank.documents import (
    document_vectors as document_vectors,
    encode_documents as encode_documents,
    search_documents as search_documents,
)
from .bank.memory_bank import (
    MemoryBank as MemoryBank,
)
from .clip.encoder import (
    ClipEncoder as ClipEncoder,
)
from .clip.training import (
    train_clip as train_clip,
)
from .clip.training_config import (
    ClipTrainingConfig as ClipTrainingConfig,
)
from .contract import (
    check_encoder as check_encoder,
)
from .index.config import (
    IndexConfig as IndexConfig,
)
from .index.exact import (
    build_index as build_index,
    search as search,
)
from .index.plan import (
    expected_bytes as expected_bytes,
    plan_index as plan_index,
)
from .interface import (
    INTERFACE_VERSION as INTERFACE_VERSION,
    Encoder as Encoder,
)
from .neighbours.building import (
    build_neighbour_table as build_neighbour_table,
)
from .neighbours.calibration import (
    calibrated as calibrated,
)
from .neighbours.context import (
    inference_context as inference_context,
    training_context as training_context,
)
from .neighbours.strategy import (
    RetrievalConfig as RetrievalConfig,
    drop_query_tokens as drop_query_tokens,
    select as select,
)
from .neighbours.table import (
    NeighbourTable as NeighbourTable,
)
