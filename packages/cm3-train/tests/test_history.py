import pytest

from cm3_train import read_history


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_row_of_the_log_is_left_out(tmp_path, cut):
    """A kill may cut a row anywhere: within a number, which would then be another one, too."""
    for version, text in enumerate(
        ["step,train/loss\r\n0,1.5\r\n1,2.25\r\n", "step,train/loss\r\n1,3.25\r\n"]
    ):
        path = tmp_path / f"csv/version_{version}/metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_bytes(text.encode()[: -cut if version == 0 else None])
    whole = {0: {"train/loss": 1.5}, 1: {"train/loss": 3.25}}
    if cut > len("1,2.25\r\n"):
        del whole[0]
    assert read_history(tmp_path) == whole
    path.write_bytes(b"step,tra")  # not even the header is whole
    assert read_history(tmp_path) == ({0: {"train/loss": 1.5}} if 0 in whole else {})


@pytest.mark.parametrize("row", [",2.5", "x,2.5", "1.0,2.5", "1,high", "1,2.5,3", ""])
@pytest.mark.parametrize("header", ["step,train/loss", "train/loss"])
def test_a_whole_row_that_cannot_be_read_is_named(tmp_path, header, row):
    path = tmp_path / "csv/version_0/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"step,train/loss\n0,1.5\n{row}\n2,1.25\n".replace("step,train/loss", header, 1)
    )
    if row == "" and header.startswith("step"):  # blank lines are nothing
        assert sorted(read_history(tmp_path)) == [0, 2]
        return
    line = 3 if header.startswith("step") else 2
    with pytest.raises(ValueError, match=rf"metrics\.csv:{line}: wanted a step and figures, got"):
        read_history(tmp_path)
