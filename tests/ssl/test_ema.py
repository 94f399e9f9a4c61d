"""A teacher follows as a plain moving average does, and its momentum goes where it is said to."""

import copy
import math

import pytest
import torch
from fewvox.ssl.ema import base_momentum, follow, momentum_at, teacher_of
from torch import nn


def make_student(seed: int = 0) -> nn.Sequential:
    """Weights, biases, and buffers of which one is a counter."""
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    student(torch.randn(5, 3))
    return student


def test_a_teacher_begins_as_a_copy_that_learns_by_no_gradient():
    student = make_student()
    teacher = teacher_of(student)
    assert all(torch.equal(t, s) for t, s in zip(teacher.parameters(), student.parameters(), strict=True))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        for p in student.parameters():
            p += 1
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_weights_follow_as_in_plain_loops():
    student = make_student()
    teacher, momenta = teacher_of(student), (0.9, 0.5, 0.99)
    expected = [p.flatten().tolist() for p in teacher.parameters()]
    for step, momentum in enumerate(momenta):
        with torch.no_grad():
            for p in student.parameters():
                p += torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
        follow(teacher, student, momentum)
        expected = [
            [
                momentum * mine + (1 - momentum) * theirs
                for mine, theirs in zip(old, p.flatten().tolist(), strict=True)
            ]
            for old, p in zip(expected, student.parameters(), strict=True)
        ]
    for p, values in zip(teacher.parameters(), expected, strict=True):
        assert p.flatten().tolist() == pytest.approx(values, rel=1e-5, abs=1e-6)


def test_a_momentum_of_1_leaves_the_weights_and_one_of_0_takes_them_over():
    student, teacher = make_student(0), teacher_of(make_student(1))
    before = [p.clone() for p in teacher.parameters()]
    follow(teacher, student, 1.0)
    assert all(torch.equal(p, b) for p, b in zip(teacher.parameters(), before, strict=True))
    follow(teacher, student, 0.0)
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_buffers_are_taken_over_and_stay_their_own():
    """Also the counter, which can be no average."""
    student, teacher = make_student(0), teacher_of(make_student(1))
    student(torch.randn(5, 3, generator=torch.Generator().manual_seed(2)))
    follow(teacher, student, 0.9)
    taken = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    assert taken["1.num_batches_tracked"] == 2
    assert all(torch.equal(buffer, taken[name]) for name, buffer in student.named_buffers())
    student(torch.randn(5, 3))
    assert all(torch.equal(buffer, taken[name]) for name, buffer in teacher.named_buffers())


def test_following_leaves_the_student_and_needs_no_graph():
    student = make_student()
    teacher, before = teacher_of(student), copy.deepcopy(student.state_dict())
    with torch.no_grad():
        for p in teacher.parameters():
            p += 1
    follow(teacher, student, 0.5)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert all(p.is_leaf and not p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_another_network_is_not_followed():
    with pytest.raises(ValueError, match="argument"):
        follow(teacher_of(nn.Sequential(nn.Linear(3, 4))), make_student(), 0.9)


@pytest.mark.parametrize(("steps", "base"), [(10, 0.9), (301, 0.996), (2, 0.0)])
def test_momentum_rises_from_its_base_to_1_along_a_cosine(steps, base):
    momenta = [momentum_at(step, steps, base) for step in range(steps)]
    assert momenta[0] == pytest.approx(base, abs=1e-12)
    assert momenta[-1] == 1
    assert momenta == sorted(momenta)
    for step, momentum in enumerate(momenta):
        # half a period from the base up, around their middle
        angle = math.pi * step / (steps - 1)
        assert momentum == pytest.approx((base + 1) / 2 - (1 - base) / 2 * math.cos(angle), abs=1e-12)


def test_the_momentum_of_a_training_of_one_step_is_the_base():
    """The teacher would learn nothing with the last one, 1."""
    assert momentum_at(0, 1, 0.9) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # as long as the paper's, or longer: its own
        (100_000, 0.996),
        (10**6, 0.996),
        # a quarter of it: half of its 250 steps are remembered
        (25_000, 1 - 1 / 125),
        (400, 1 - 1 / 15.811388),
        # 10 steps at least
        (160, 0.9),
        (1, 0.9),
    ],
)
def test_a_shorter_training_has_a_shorter_memory_down_to_ten_steps(steps, expected):
    assert base_momentum(steps, 0.996, 100_000) == pytest.approx(expected, rel=1e-6)
