"""Training CM3: token shards, the CM3 objective, deterministic batches, Lightning modules."""

from .averaging import average_weights
from .batch import (
    IGNORE,
    BatchLoader,
    GroupOrder,
    SampleOrder,
    TokenLoader,
    ValidationLoader,
    collate,
    group_repeats,
)
from .callbacks import RunCheckpoints, StopSignals, TimeLeftBar, TrainingInterrupted
from .checkpoint_io import AtomicCheckpointIO
from .cm3 import CM3Config, cm3_transform, query_start, undo_cm3
from .contract import check_trainable_model
from .input_noise import add_input_noise
from .interface import INTERFACE_VERSION, TrainableModel
from .loss import bits, next_token_loss, split_losses, token_losses
from .module import CM3Module
from .optim import (
    MuonAdamW,
    OptimConfig,
    build_optimizer,
    build_schedule,
    hidden_matrices,
    lr_share,
    orthogonalise,
)
from .sequence import SequenceBuilder
from .shards import TokenShards, write_shards
from .trainer import fit, load_weights, read_history

__all__ = [
    "IGNORE",
    "INTERFACE_VERSION",
    "AtomicCheckpointIO",
    "BatchLoader",
    "CM3Config",
    "CM3Module",
    "GroupOrder",
    "MuonAdamW",
    "OptimConfig",
    "RunCheckpoints",
    "SampleOrder",
    "SequenceBuilder",
    "StopSignals",
    "TimeLeftBar",
    "TokenLoader",
    "TokenShards",
    "TrainableModel",
    "TrainingInterrupted",
    "ValidationLoader",
    "add_input_noise",
    "average_weights",
    "bits",
    "build_optimizer",
    "build_schedule",
    "check_trainable_model",
    "cm3_transform",
    "collate",
    "fit",
    "group_repeats",
    "hidden_matrices",
    "load_weights",
    "lr_share",
    "next_token_loss",
    "orthogonalise",
    "query_start",
    "read_history",
    "split_losses",
    "token_losses",
    "undo_cm3",
    "write_shards",
]
