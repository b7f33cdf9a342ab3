"""The public names; `__init__.py` imports each when it is first used."""

from .averaging import (
    averaged_model as averaged_model,
)
from .callbacks import (
    RunCheckpoints as RunCheckpoints,
    StopSignals as StopSignals,
    TimeLeftBar as TimeLeftBar,
    TrainingInterrupted as TrainingInterrupted,
)
from .checkpoint_io import (
    AtomicCheckpointIO as AtomicCheckpointIO,
)
from .cm3 import (
    CM3Config as CM3Config,
    cm3_transform as cm3_transform,
    move_spans as move_spans,
    query_start as query_start,
    undo_cm3 as undo_cm3,
)
from .collate import (
    IGNORE as IGNORE,
    Sample as Sample,
    collate as collate,
)
from .config import (
    InstructionConfig as InstructionConfig,
    LoraConfig as LoraConfig,
    OptimConfig as OptimConfig,
)
from .contract import (
    check_trainable_model as check_trainable_model,
)
from .history import (
    read_history as read_history,
)
from .instruction import (
    Instruction as Instruction,
    InstructionBuilder as InstructionBuilder,
)
from .interface import (
    INTERFACE_VERSION as INTERFACE_VERSION,
    TrainableModel as TrainableModel,
)
from .loader import (
    BatchLoader as BatchLoader,
    TokenLoader as TokenLoader,
    ValidationLoader as ValidationLoader,
)
from .lora import (
    adapters_of as adapters_of,
    add_adapters as add_adapters,
    merge_adapters as merge_adapters,
    merged_weights as merged_weights,
)
from .loss import (
    TokenLosses as TokenLosses,
    bits as bits,
    next_token_loss as next_token_loss,
    split_losses as split_losses,
    token_losses as token_losses,
)
from .matrix_roles import (
    hidden_matrices as hidden_matrices,
)
from .mixture import (
    Mixture as Mixture,
    balanced as balanced,
)
from .module import (
    CM3Module as CM3Module,
)
from .muon import (
    MuonAdamW as MuonAdamW,
    orthogonalise as orthogonalise,
)
from .optim import (
    build_optimizer as build_optimizer,
    build_schedule as build_schedule,
    lr_share as lr_share,
)
from .order import SampleOrder as SampleOrder
from .packed import (
    PackedLoader as PackedLoader,
    collate_packed as collate_packed,
)
from .progress import progress_bar as progress_bar
from .samples import (
    Draw as Draw,
    Samples as Samples,
    Shown as Shown,
)
from .sequence import (
    SequenceBuilder as SequenceBuilder,
)
from .shard_files import (
    seal_shards as seal_shards,
    write_shard as write_shard,
    write_shards as write_shards,
)
from .shards import (
    TokenShards as TokenShards,
)
from .throughput import (
    Throughput as Throughput,
    peak_operations as peak_operations,
)
from .trainer import (
    fit as fit,
    load_weights as load_weights,
)
