import pickle
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp

from cm3_train.foreign_pickles import check_metadata, weights_only
from cm3_train.kept_checkpoints import check_whole, seal


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def save(folder, **more):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, **more}
    state |= {"half": torch.ones(2, dtype=torch.bfloat16), "ids": torch.ones(2, dtype=torch.int64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    return state


def load(folder, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=folder, no_dist=True)


def test_a_checkpoint_of_tensors_and_plain_values_is_read(tmp_path):
    wanted = save(tmp_path)
    seal(tmp_path)
    check_whole(tmp_path)
    found = {**wanted, "ids": torch.zeros(2, dtype=torch.int64), "step": 0}
    with weights_only():
        load(tmp_path, found)
    assert found["step"] == 3 and found["ids"].tolist() == [1, 1]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_metadata_that_would_run_code_is_refused(tmp_path, protocol):
    save(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol))
    seal(tmp_path)  # its hashes are right
    with pytest.raises(ValueError, match="metadata: wanted descriptions of tensors, got"):
        check_whole(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_names_within_allowed_modules_are_refused_too(tmp_path):
    module, name = b"torch.distributed.checkpoint.filesystem", b"os.system"
    nested = (
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(x)]) + x for x in (module, name)) + b"\x93."
    )
    (tmp_path / ".metadata").write_bytes(nested)
    with pytest.raises(ValueError, match="os.system"):
        check_metadata(tmp_path / ".metadata")
    (tmp_path / ".metadata").write_bytes(b"\x80")
    with pytest.raises(ValueError, match="metadata"):
        check_metadata(tmp_path / ".metadata")


def test_values_that_would_run_code_are_refused(tmp_path):
    state = save(tmp_path / "a", bad=Runs(tmp_path / "ran"))
    with weights_only(), pytest.raises(BaseException, match="(?i)weights.only"):
        load(tmp_path / "a", state)
    assert not (tmp_path / "ran").exists()
