#!/usr/bin/env bash
# Train on the GPUs of one node; arguments are those of apps/pretrain.py, the recipe first:
#   GPUS=8 examples/torchrun.sh --config apps/configs/760m.yaml --data.folder FOLDER
# The first process makes the stages before the decoder while the others wait; all train it.
# Stopped by Ctrl-C or a kill, the same command goes on.
set -euo pipefail
GPUS="${GPUS:-8}"
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "$GPUS" \
  apps/pretrain.py "$@" --trainer.devices "$GPUS" --trainer.num_nodes 1
