"""The moving average against its recurrence written out in plain Python, and against timm's."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn
from toy_data import toy_net

from luthier.train.ema import Ema, decay_at


def test_recurrence_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    ema = Ema(layer, decay=0.9)
    average = layer.weight.item()
    for step, weight in enumerate([2.0, -1.0, 5.0, 5.0]):
        with torch.no_grad():
            layer.weight.fill_(weight)
        ema.update()
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
        assert ema.module.weight.item() == pytest.approx(average, rel=1e-6)


def test_equals_timm_where_the_warm_up_is_over() -> None:
    module = toy_net()
    ours, theirs = Ema(module, decay=0.9), ModelEmaV3(module, decay=0.9)
    ours.step = 10_000
    for _ in range(5):
        module.train()(torch.randn(4, 3, 8, 8))  # moves the norm statistics
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.update()
        theirs.update(module)
    for (name, mine), other in zip(ours.module.state_dict().items(), theirs.module.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6, msg=name)
    assert int(ours.module[1].num_batches_tracked) == 5


def test_the_module_is_not_touched_and_the_copy_needs_no_gradient() -> None:
    module = toy_net()
    before = copy.deepcopy(module.state_dict())
    ema = Ema(module, 0.99)
    ema.update()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert not ema.module.training


def test_decay_warms_up() -> None:
    decays = [decay_at(step, 0.999) for step in range(20_000)]
    assert decays == sorted(decays)
    assert (decays[0], decays[-1]) == (0.1, 0.999)
