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
