"""NaN ends a run at once, and a resumed one goes on from the last finite checkpoint."""

import lightning as L
import numpy as np
import pytest
import torch

from cm3_train import AtomicCheckpointIO, BatchLoader, SampleOrder, finite, fit

STEPS, SAVE_EVERY = 8, 3
NAN, INF = float("nan"), float("inf")


class Plain(L.LightningModule):
    """A linear model; at batch `at`, loss or gradient are multiplied by `factor`."""

    def __init__(self, what="loss", at=None, factor=NAN):
        super().__init__()
        torch.manual_seed(0)
        self.w = torch.nn.Linear(2, 1)
        self.empty = torch.nn.Parameter(torch.empty(0))
        self.what, self.at, self.factor = what, at, factor

    def training_step(self, batch, batch_idx):
        loss = self.w(batch["x"]).square().mean()
        self.bad = batch_idx == self.at
        return loss * self.factor if self.bad and self.what == "loss" else loss

    def on_after_backward(self):
        if self.bad and self.what == "weights":
            self.w.weight.grad.fill_(self.factor)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.w(batch["x"]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Manual(Plain):
    """The same with an optimizer of its own hand; Lightning then knows of no loss."""

    def __init__(self, **options):
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss, optimizer = super().training_step(batch, batch_idx), self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


def loader(named):
    def make_batch(keys, epochs, position):
        batch = {"x": torch.from_numpy(np.stack([keys, epochs], 1)).float() / 10}
        return {**batch, "keys": torch.tensor(keys)} if named else batch

    return BatchLoader(make_batch, SampleOrder(np.arange(10, 17), 0, 2))


def go(folder, module, named=True, val_every=99, **options):
    validation = torch.utils.data.DataLoader([{"x": torch.ones(1, 2)}], batch_size=None)
    return fit(
        module,
        loader(named),
        validation,
        run_dir=folder,
        max_steps=STEPS,
        val_every=val_every,
        checkpoint_every=SAVE_EVERY,
        accelerator="cpu",
        **options,
    )


def weights(path):
    state = AtomicCheckpointIO().load_checkpoint(path)["state_dict"]
    assert all(bool(value.isfinite().all()) for value in state.values())
    return state


def keys_of(batch):
    return SampleOrder(np.arange(10, 17), 0, 2).batch(2 * batch)[0].tolist()


# Before the first save, at a save, behind one, and in the last step.
@pytest.mark.parametrize("at", [0, 2, 4, STEPS - 1])
@pytest.mark.parametrize(("what", "factor"), [("loss", NAN), ("loss", INF), ("weights", -INF)])
def test_a_run_ends_at_the_first_number_that_is_not_finite(tmp_path, at, what, factor):
    go(tmp_path / "unbroken", Plain())
    message = rf"^{what}: wanted finite .* in step {at + 1} with the keys \[{keys_of(at)[0]}, "
    with pytest.raises(FloatingPointError, match=message) as caught:
        go(tmp_path / "broken", Plain(what, at, factor))
    last = tmp_path / "broken" / "last.ckpt"
    assert ("no checkpoint was written" in str(caught.value)) == (at < SAVE_EVERY)
    assert last.exists() == (at >= SAVE_EVERY)
    if last.exists():
        weights(last)
    go(tmp_path / "broken", Plain())  # what was wrong is mended: the same command goes on
    wanted, found = weights(tmp_path / "unbroken" / "last.ckpt"), weights(last)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("at", [3, 4, 5])  # in both batches of a step, and behind a save
def test_accumulated_batches_are_told_apart(tmp_path, at):
    step = at // 2 + 1
    for what, keys in (("loss", keys_of(at)), ("weights", keys_of(2 * step - 2))):
        message = rf"{what}: wanted .* in step {step} with the keys \[{keys[0]}, {keys[1]}[],]"
        with pytest.raises(FloatingPointError, match=message):
            go(tmp_path / what, Plain(what, at), accumulate=2)


def test_batches_without_keys_and_optimisation_by_hand(tmp_path):
    with pytest.raises(FloatingPointError, match=r"got NaN or infinity in step 3; no checkpoint"):
        go(tmp_path / "a", Plain(at=2), named=False)
    with pytest.raises(FloatingPointError, match="^weights: .* in step 5 with the keys"):
        go(tmp_path / "b", Manual(at=4))
    weights(tmp_path / "b" / "last.ckpt")


@pytest.mark.parametrize("val_every", [2, 99])
@pytest.mark.parametrize(("at", "read_at"), [(3, 6), (4, 6), (6, 8)])
def test_where_reading_waits_it_is_done_before_every_save(
    tmp_path, monkeypatch, at, read_at, val_every
):
    """As on an accelerator; the step that is named is still the first bad one."""
    monkeypatch.setattr(finite, "_read_every", lambda device: 32)
    seen = []

    class Seen(L.Callback):
        def on_train_batch_start(self, *args):
            seen.append(args)

    with pytest.raises(FloatingPointError, match=rf"in step {at + 1} with the keys"):
        go(tmp_path, Plain("weights", at), val_every=val_every, callbacks=[Seen()])
    weights(tmp_path / "last.ckpt")
    assert len(seen) == (read_at if val_every == 99 else -(-(at + 1) // 2) * 2)
    for path in tmp_path.glob("*.ckpt"):
        weights(path)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 3e38])
@pytest.mark.parametrize("place", range(4))
def test_weights_of_any_type_are_looked_at(value, place):
    types = [torch.float32, torch.bfloat16, torch.float64, torch.float32]
    module = Plain()
    module.parts = torch.nn.ParameterList(torch.ones(3, dtype=dtype) for dtype in types)
    true = torch.tensor(True)
    assert finite._all_finite(module, true)
    with torch.no_grad():
        module.parts[place][1] = value
    assert bool(finite._all_finite(module, true)) == (value == 3e38)
    module.parts.requires_grad_(False)  # what is not trained is not looked at
    assert finite._all_finite(module, true)


@pytest.mark.parametrize("factor", [NAN, INF])
@pytest.mark.parametrize("at", [0, 4])
def test_a_buffer_that_is_not_finite_ends_a_run_whatever_the_loss(tmp_path, at, factor):
    class Buffered(Plain):
        def __init__(self, **options):
            super().__init__(**options)
            self.register_buffer("seen", torch.zeros(3))
            self.register_buffer("count", torch.zeros((), dtype=torch.long))
            self.register_buffer("mask", torch.full((4, 4), -INF).triu(1))  # is meant

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.seen[1] += self.factor if self.bad else 1.0
            return loss

    message = rf"^weights: wanted finite .* in step {at + 1} with the keys"
    with pytest.raises(FloatingPointError, match=message):
        go(tmp_path / "a", Buffered(what="buffer", at=at, factor=factor))
    assert (tmp_path / "a" / "last.ckpt").exists() == (at >= SAVE_EVERY)
    go(tmp_path / "a", Buffered())
    state = AtomicCheckpointIO().load_checkpoint(tmp_path / "a" / "last.ckpt")["state_dict"]
    assert state["seen"].tolist() == [0, STEPS, 0]


def test_buffers_of_any_type_are_looked_at():
    types = [torch.float32, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int8]
    module, true = Plain(), torch.tensor(True)
    for place, dtype in enumerate(types):
        module.register_buffer(f"buffer{place}", torch.ones(2, 3).to(dtype))
    module.register_buffer("none_yet", torch.empty(0))
    module.register_buffer("most", torch.tensor(-INF))
    assert finite._all_finite(module, true)
    for place in range(3):
        module.get_buffer(f"buffer{place}")[1, 1] = NAN
        assert not finite._all_finite(module, true)
        module.get_buffer(f"buffer{place}")[1, 1] = 1.0
