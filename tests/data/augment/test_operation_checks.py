"""Every operation keeps to the contract, and each check finds what it is for."""

from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from fewvox.data.augment import operation_checks
from fewvox.data.augment.chain import OPERATIONS
from fewvox.data.augment.operation_checks import CHECKS, SHAPES, image_of
from fewvox.data.augment.torchio_transform import TorchIO
from fewvox.data.settings import settings
from pydantic import BeforeValidator


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", OPERATIONS)
def test_an_operation_keeps_to_the_contract(op, shape):
    kind = OPERATIONS[op]
    # which transform has no default
    operation = kind(transform="RandomGamma") if kind is TorchIO else kind()
    for check in CHECKS:
        check(operation, image_of(SHAPES[shape]))


@settings
class Sound:
    op: Literal["sound"] = "sound"
    probability: float = 0.5

    def __call__(self, image, draws):
        return image.mul_(draws.within((1.5, 2)))


class NoSettings(Sound):
    pass


@settings
class Forgetful(Sound):
    shift: Annotated[float, BeforeValidator(lambda value: 0.0)] = 1.0


@settings
class TooOften(Sound):
    probability: float = 1.5


@settings
class Cutting(Sound):
    def __call__(self, image, draws):
        return image[..., 1:]


@settings
class Dividing(Sound):
    def __call__(self, image, draws):
        return image / (image.max() - image.min())


@settings
class Doubling(Sound):
    def __call__(self, image, draws):
        return image.double()


@settings
class GlobalNumpy(Sound):
    def __call__(self, image, draws):
        np.random.rand()
        return image


@settings
class GlobalTorch(Sound):
    def __call__(self, image, draws):
        return image + torch.randn(1)


@settings
class Idle(Sound):
    def __call__(self, image, draws):
        return image


def of_this_process() -> Sound:
    @settings
    class Local(Sound):
        pass

    return Local()


@pytest.mark.parametrize(
    ("check", "operation", "found"),
    [
        ("reads_back_as_it_was_written", Forgetful(), "others after a file"),
        ("has_a_probability", TooOften(), "1.5"),
        ("keeps_the_shape_and_is_finite", Cutting(), "becomes"),
        ("keeps_the_shape_and_is_finite", Dividing(), "a flat image gets values that are not finite"),
        ("keeps_the_shape_and_is_finite", Doubling(), "float64"),
        ("same_seed_same_result", GlobalNumpy(), "a global generator"),
        ("same_seed_same_result", GlobalTorch(), "another result"),
        ("changes_something", Idle(), "nothing changes"),
        ("goes_to_another_process", of_this_process(), "local"),
    ],
)
def test_a_check_finds_what_it_is_for(check, operation, found):
    with pytest.raises((AssertionError, AttributeError), match=found):
        getattr(operation_checks, check)(operation, image_of(SHAPES["a volume"]))


def test_a_sound_operation_passes():
    for shape in SHAPES.values():
        for check in CHECKS:
            check(Sound(), image_of(shape))
