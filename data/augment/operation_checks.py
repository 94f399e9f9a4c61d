"""What every operation on grey values keeps to, ours and those of other packages.

A check raises AssertionError with what it found. `fewvox check-plugin` and the tests run the same ones.
"""

import pickle
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..settings import SettingsError, parse, plain
from .draws import Draws
from .operations import Operation

# images (C, Z, Y, X) that an operation must be able to change, by what they are
SHAPES: dict[str, tuple[int, int, int, int]] = {
    "a volume": (1, 12, 16, 14),
    "a thin volume of two channels": (2, 3, 24, 20),
    "a single slice": (1, 1, 24, 24),
}
_SEEDS = 10


def image_of(shape: tuple[int, int, int, int]) -> Tensor:
    """A z-scored image: a bright block on noise."""
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    _, z, y, x = shape
    image[:, z // 4 : z // 4 + max(1, z // 2), y // 4 : 3 * y // 4, x // 4 : 3 * x // 4] += 3
    return (image - image.mean()) / image.std()


def reads_back_as_it_was_written(operation: Operation, image: Tensor) -> None:  # noqa: ARG001
    """Its settings are the same after a file has held them, and a key that it does not have is a mistake."""
    kind, said = type(operation), plain(operation)
    assert said.get("op") == operation.op, f"a file would hold no `op` of it, but {said}"
    assert parse(kind, said, operation.op) == operation, "its settings are others after a file has held them"
    try:
        parse(kind, {**said, "no_such_setting": 1}, operation.op)
    except SettingsError:
        return
    raise AssertionError("a setting that it does not have is no mistake (it lacks @settings)")


def has_a_probability(operation: Operation, image: Tensor) -> None:  # noqa: ARG001
    """It says how often an item is changed."""
    assert 0 <= operation.probability <= 1, f"a probability of {operation.probability}"


def keeps_the_shape_and_is_finite(operation: Operation, image: Tensor) -> None:
    """What comes out has the shape and type of what went in, and no NaN, of a flat image neither."""
    for what, given in (("an image", image), ("a flat image", torch.full_like(image, 2.0))):
        for seed in range(_SEEDS):
            out = operation(given.clone(), Draws((seed,)))
            assert out.shape == image.shape, (
                f"{what} of shape {tuple(image.shape)} becomes {tuple(out.shape)}"
            )
            assert out.dtype == image.dtype, f"{what} of {image.dtype} becomes {out.dtype}"
            assert out.isfinite().all(), f"{what} gets values that are not finite"


def same_seed_same_result(operation: Operation, image: Tensor) -> None:
    """All of its random numbers come from the draws that it is given, and none from global state."""
    first, before = operation(image.clone(), Draws((1,))), _global_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = operation(image.clone(), Draws((1,)))
    assert torch.equal(first, again), "the same draws have another result"
    assert _global_state() == before, "it draws from a global generator"


def changes_something(operation: Operation, image: Tensor) -> None:
    """Of several seeds one at least changes the image."""
    found = (operation(image.clone(), Draws((seed,))) for seed in range(_SEEDS))
    assert any(not torch.equal(image, changed) for changed in found), f"nothing changes with {_SEEDS} seeds"


def goes_to_another_process(operation: Operation, image: Tensor) -> None:  # noqa: ARG001
    """The processes that make batches can be given it."""
    assert pickle.loads(pickle.dumps(operation)) == operation, "it is another one after pickling"


def _global_state() -> tuple[object, ...]:
    of_numpy = np.random.get_state()
    return random.getstate(), str(of_numpy), torch.get_rng_state().numpy().tobytes()


CHECKS: tuple[Callable[[Operation, Tensor], None], ...] = (
    reads_back_as_it_was_written,
    has_a_probability,
    keeps_the_shape_and_is_finite,
    same_seed_same_result,
    changes_something,
    goes_to_another_process,
)
