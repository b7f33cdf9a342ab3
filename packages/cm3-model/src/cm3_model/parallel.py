"""Split a decoder over processes: FSDP2 along one dimension, tensor parallelism along the other.

Takes a decoder and a device mesh, gives the same decoder with sharded weights. Lightning's
`ModelParallelStrategy` makes such a mesh; call `parallelize(model, self.device_mesh)` in
`configure_model`. Only tried on CPUs with gloo.
"""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from cm3_model.config import DecoderConfig
from cm3_model.transformer import Decoder

DATA, TENSOR = "data_parallel", "tensor_parallel"
"""Names of the mesh's dimensions, as Lightning calls them."""


def tensor_plan(config: DecoderConfig) -> dict[str, ParallelStyle]:
    """Plan how to split a block's matrices: those that widen by rows, those that narrow by columns.

    Queries, keys and values share a matrix, whose even parts are not whole heads; gate and input of
    "swiglu" share one, too. The output of such a matrix is gathered before it is used.
    """
    whole = config.activation == "swiglu"
    return {
        "attention.qkv": ColwiseParallel(output_layouts=Replicate()),
        "attention.out": RowwiseParallel(input_layouts=Replicate()),
        "mlp.up": ColwiseParallel(output_layouts=Replicate()) if whole else ColwiseParallel(),
        "mlp.down": RowwiseParallel(input_layouts=Replicate()) if whole else RowwiseParallel(),
    }


def parallelize(model: Decoder, device_mesh: DeviceMesh) -> Decoder:
    """Shard a decoder in place; make the optimizer afterwards.

    Args:
        model: The decoder, with the same weights in every process.
        device_mesh: A mesh with the dimensions "data_parallel" and "tensor_parallel".

    Raises:
        ValueError: If the mesh has other dimensions.
    """
    if set(device_mesh.mesh_dim_names or ()) != {DATA, TENSOR}:
        raise ValueError(
            f"device_mesh: wanted dimensions {DATA!r} and {TENSOR!r}, "
            f"got {device_mesh.mesh_dim_names}"
        )
    if device_mesh[TENSOR].size() > 1:
        for block in model.blocks:
            parallelize_module(block, device_mesh[TENSOR], tensor_plan(model.config))
    if device_mesh[DATA].size() > 1:
        for block in model.blocks:
            fully_shard(block, mesh=device_mesh[DATA])
        fully_shard(model, mesh=device_mesh[DATA])
        # Trainers call the two halves of `forward` themselves.
        for name in ("hidden", "head"):
            register_fsdp_forward_method(model, name)
    return model
