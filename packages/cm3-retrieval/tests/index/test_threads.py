import numpy as np
import torch

from cm3_retrieval.index.exact import build_index, search


def test_a_search_leaves_torch_its_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        search(build_index(np.eye(4, dtype=np.float32), np.arange(4)), np.eye(4), 2, threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
