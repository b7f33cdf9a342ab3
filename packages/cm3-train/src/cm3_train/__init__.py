"""Training CM3: token shards, the CM3 objective, deterministic batches, Lightning modules."""

from cm3_train.averaging import average_weights
from cm3_train.batch import (
    IGNORE,
    BatchLoader,
    GroupOrder,
    SampleOrder,
    TokenLoader,
    ValidationLoader,
    collate,
    group_repeats,
)
from cm3_train.callbacks import RunCheckpoints, StopSignals, TimeLeftBar, TrainingInterrupted
from cm3_train.checkpoint_io import AtomicCheckpointIO
from cm3_train.cm3 import CM3Config, cm3_transform, query_start, undo_cm3
from cm3_train.contract import check_trainable_model
from cm3_train.input_noise import add_input_noise
from cm3_train.interface import INTERFACE_VERSION, TrainableModel
from cm3_train.loss import bits, next_token_loss, split_losses, token_losses
from cm3_train.module import CM3Module
from cm3_train.optim import (
    MuonAdamW,
    OptimConfig,
    build_optimizer,
    build_schedule,
    hidden_matrices,
    lr_share,
    orthogonalise,
)
from cm3_train.sequence import SequenceBuilder
from cm3_train.shards import TokenShards, write_shards
from cm3_train.trainer import fit, load_weights, read_history

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
