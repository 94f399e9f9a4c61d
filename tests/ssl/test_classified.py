"""The loss of one right answer among several, against plain loops."""

import math

import pytest
import torch
from fewvox.ssl.classified import classified

LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1, 0])


def test_the_loss_is_that_of_plain_loops_in_value_and_gradient():
    logits = LOGITS.float().requires_grad_()
    result = classified(logits, LABELS)
    result.loss.backward()
    losses, gradients = [], []
    for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        total = sum(math.exp(v) for v in row)
        losses.append(-math.log(math.exp(row[label]) / total))
        gradients.append([(math.exp(v) / total - (k == label)) / 5 for k, v in enumerate(row)])
    assert result.loss.item() == pytest.approx(sum(losses) / 5, rel=1e-6)
    torch.testing.assert_close(logits.grad, torch.tensor(gradients), atol=1e-6, rtol=1e-5)


def test_accuracy_counts_right_answers_and_chance_those_of_guessing():
    right = [max(range(3), key=row.__getitem__) == k for row, k in zip(LOGITS.tolist(), LABELS, strict=True)]
    logs = classified(LOGITS.requires_grad_(), LABELS).logs
    assert float(logs["accuracy"]) == pytest.approx(sum(right) / 5)
    assert float(logs["chance"]) == pytest.approx(1 / 3)
    assert not logs["accuracy"].requires_grad


def test_saying_nothing_costs_the_logarithm_of_the_number_of_answers():
    assert float(classified(torch.zeros(4, 26), torch.arange(4)).loss) == pytest.approx(math.log(26))


def test_logits_of_half_precision_are_taken_in_full():
    """Their exponentials overflow, and 2048 + 1 is 2048."""
    result = classified(torch.tensor([[2000.0, 1999.0], [0.0, 60000.0]]).half(), torch.tensor([0, 1]))
    assert result.loss.dtype == torch.float32
    assert float(result.loss) == pytest.approx(math.log1p(math.exp(-1)) / 2, rel=1e-5)
