import pytest
import torch

from cm3_train import CM3Module, OptimConfig, fit


def test_without_averaging_the_model_is_exported(tiny):
    model = tiny.Model()
    exported = CM3Module(model, OptimConfig(), tiny.image_range).export_state()
    assert all(torch.equal(exported[name], value) for name, value in model.state_dict().items())
    exported["gain"].zero_()  # a copy
    assert model.gain.abs().sum() > 0


def test_optimizer_leaves_the_averaged_weights_alone(tiny):
    module = CM3Module(tiny.Model(), OptimConfig(name="muon", ema_decay=0.9), tiny.image_range)
    groups = module.configure_optimizers()["optimizer"].param_groups
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in module.model.parameters()}


def test_a_model_without_hidden_is_refused():
    with pytest.raises(TypeError, match="model: wanted methods hidden and head"):
        CM3Module(torch.nn.Linear(2, 2), OptimConfig(), (0, 1))


def test_the_loss_of_a_step_is_the_weighted_mean_of_its_tokens(tiny, tmp_path):
    """Over accumulated batches: gradients as of one weighted sum over the sum of the weights."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        {
            "input_ids": torch.randint(8, 36, (2, 9), generator=generator),
            "labels": torch.randint(8, 36, (2, 9), generator=generator),
            "weights": torch.rand(2, 9, generator=generator),
        }
        for _ in range(2)
    ]

    class Descent(CM3Module):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1.0)

    module = Descent(tiny.Model(), OptimConfig(total_steps=1, grad_clip=0), tiny.image_range)
    fit(
        module,
        Batches(batches),
        None,
        run_dir=tmp_path,
        max_steps=1,
        val_every=1,
        checkpoint_every=1,
        accumulate=2,
        accelerator="cpu",
    )
    model = tiny.Model()
    logits = torch.cat([model.head(model.hidden(b["input_ids"])) for b in batches]).flatten(0, 1)
    labels, weights = (torch.cat([b[n] for b in batches]).flatten() for n in ("labels", "weights"))
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    ((each * weights).sum() / weights.sum()).backward()
    for moved, was in zip(module.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(moved, was - was.grad)


class Batches:
    """A loader that is no list."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)
