import pytest
import torch

from cm3_model import CheckpointError, import_chameleon


def test_code_in_a_pth_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"output.weight": Evil()}, tmp_path / "consolidated.pth")
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(CheckpointError, match="consolidated.pth: cannot be read"):
        import_chameleon(tmp_path)
