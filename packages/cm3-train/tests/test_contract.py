import pytest
import torch

from cm3_train import check_trainable_model


def test_a_good_model_passes(tiny):
    check_trainable_model(tiny.Model().eval(), vocab_size=tiny.vocab_size)


def test_a_model_that_sees_the_future_does_not(tiny):
    class Peeking(tiny.Model):
        def hidden(self, input_ids):
            x = super().hidden(input_ids)
            return x + x.mean(1, keepdim=True)

    with pytest.raises(AssertionError, match="sees later ids"):
        check_trainable_model(Peeking().eval(), vocab_size=tiny.vocab_size)


def test_wrong_width_and_missing_methods(tiny):
    with pytest.raises(AssertionError, match="head: wanted"):
        check_trainable_model(tiny.Model().eval(), vocab_size=tiny.vocab_size - 1)
    with pytest.raises(AssertionError, match="no hidden"):
        check_trainable_model(torch.nn.Linear(2, 2), vocab_size=4)
