import signal
from types import SimpleNamespace

import pytest

from cm3_train import RunCheckpoints, StopSignals, TrainingInterrupted
from cm3_train.kept_checkpoints import KeptCheckpoints


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [("min", [3.0, 1.0, float("nan"), 2.0], 2), ("max", [3.0, 4.0, 4.0, 2.0], 2)],
)
def test_best_is_kept_and_nan_never_is(tmp_path, mode, scores, best):
    class Trainer:
        should_stop = False
        world_size = 1
        is_global_zero = True
        strategy = SimpleNamespace(barrier=lambda name: None)
        callback_metrics: dict = {}
        saved: list = []

        def save_checkpoint(self, path, weights_only):
            self.saved.append(path.name)
            path.write_text("")

    callback = RunCheckpoints(
        KeptCheckpoints(tmp_path, 2),
        max_steps=9,
        checkpoint_every=9,
        val_every=1,
        monitor="x",
        mode=mode,
        signals=StopSignals(),
    )
    for step, score in enumerate(scores, 1):
        callback.step = step
        Trainer.callback_metrics = {"x": score}
        callback.on_validation_end(Trainer(), None)
    assert callback.best_step == best
    assert Trainer.saved == ["next-best.ckpt"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_the_second_ctrl_c_stops_at_once():
    signals = StopSignals()
    signals._receive(signal.SIGINT, None)
    assert signals.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        signals._receive(signal.SIGINT, None)


def test_interruption_is_an_exit():
    assert TrainingInterrupted(signal.SIGTERM, 3).code == 143
    assert isinstance(TrainingInterrupted(signal.SIGINT, 3), SystemExit)
