"""The levels that a plan asks for."""

from fewvox.data.plan import Training
from fewvox.seg.networks.topology import topology


def test_every_pooling_adds_a_level_of_twice_the_features():
    found = topology(Training(patch=(8, 16, 16), strides=((1, 2, 2), (2, 2, 2)), width=8))
    assert found.features == (8, 16, 32)
    assert found.strides == ((1, 2, 2), (2, 2, 2))
    assert found.kernels == ((3, 3, 3),) * 3


def test_features_grow_up_to_the_plan_s_maximum():
    found = topology(Training(patch=(32, 32, 32), strides=((2, 2, 2),) * 5, width=32, max_width=100))  # type: ignore[arg-type]
    assert found.features == (
        32, 64, 100, 100, 100, 100
    )  # fmt: skip


def test_an_axis_of_one_slice_has_flat_kernels():
    assert topology(Training(patch=(1, 16, 16), strides=((1, 2, 2),), width=8)).kernels == ((1, 3, 3),) * 2


def test_without_pooling_there_is_one_level():
    found = topology(Training(patch=(3, 3, 3), strides=(), width=8))
    assert (found.features, found.kernels, found.strides) == ((8,), ((3, 3, 3),), ())


def test_residual_blocks_are_repeated_for_deeper_levels_and_left_out_where_there_are_none():
    training = Training(patch=(16, 16, 16), strides=((2, 2, 2),) * 3, width=8)  # type: ignore[arg-type]
    assert topology(training, (1, 3)).blocks == (1, 3, 3, 3)
    assert topology(training, (1, 2, 3, 4, 5)).blocks == (1, 2, 3, 4)
    assert topology(training).blocks == ()
