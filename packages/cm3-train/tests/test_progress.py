from cm3_train import progress_bar


def test_a_bar_says_what_runs_how_far_and_which_figures(capsys):
    with progress_bar("tokenizer", "picture", leave=True) as progress:
        progress(3, 8)
        progress(8, 8, {"loss": 0.12345})
    shown = capsys.readouterr().err
    assert "tokenizer" in shown and "8/8" in shown and "picture" in shown
    assert "loss=0.123" in shown


def test_a_bar_that_goes_on_counts_from_where_it_stood(capsys):
    with progress_bar("decoder", done=90, leave=True) as progress:
        progress(100, 100)
    assert "100/100" in capsys.readouterr().err
