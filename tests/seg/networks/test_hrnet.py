"""HRNet's branches: all levels reach all others, and names do not depend on how many levels there are."""

import pytest
import torch
from fewvox.seg.networks.hrnet import Exchange, HRNet
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.networks.topology import Topology


@pytest.fixture
def network(make_plan) -> HRNet:
    plan = make_plan(patch=(4, 8, 8), strides=((1, 2, 2), (2, 2, 2)))
    return build(architecture_for(plan, "hrnet"), 0)  # type: ignore[return-value]


def test_a_level_has_a_stage_for_itself_and_each_coarser_one(network):
    assert [len(branch.blocks) for branch in network.encoder] == [3, 2, 1]
    exchanges = [[(len(e.finer), len(e.coarser)) for e in branch.exchanges] for branch in network.encoder]
    assert exchanges == [[(0, 0), (0, 1), (0, 2)], [(1, 0), (1, 1)], [(2, 0)]]


def test_every_encoder_level_hears_of_every_other(network):
    images = torch.randn(1, 1, 4, 8, 8)
    before = network.encode(images)
    for level in range(3):
        blocks = network.encoder[level].blocks[0]
        with torch.no_grad():
            blocks[0].first[0].weight.mul_(-1)  # type: ignore[index]
            blocks[0].second[1].weight.fill_(1)  # type: ignore[index]
        after = network.encode(images)
        assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=True))
        before = after


def test_coarser_features_are_repeated_over_the_strides_between():
    levels = Topology(features=(2, 3, 4), kernels=((3, 3, 3),) * 3, strides=((1, 2, 2), (2, 1, 2)))
    exchange = Exchange(0, 3, levels, [(1, 1, 1), *levels.strides])
    fine, middle, coarse = torch.zeros(1, 2, 4, 8, 8), torch.zeros(1, 3, 4, 4, 4), torch.randn(1, 4, 2, 4, 2)
    found = exchange(fine, middle, coarse)
    assert found.shape == fine.shape
    # the coarsest level alone is not 0 everywhere
    for axis, times in ((2, 2), (3, 2), (4, 4)):
        first = found.index_select(axis, torch.arange(0, found.shape[axis], times))
        torch.testing.assert_close(found, first.repeat_interleave(times, dim=axis))
    assert float(found.detach().std()) > 0.1


def test_a_level_s_names_and_shapes_are_those_in_a_deeper_network(make_plan, network):
    deeper = make_plan(patch=(4, 8, 8), strides=((1, 2, 2), (2, 2, 2), (1, 2, 2)))
    more = build(architecture_for(deeper, "hrnet")).state_dict()
    assert {
        name: t.shape for name, t in network.state_dict().items() if name.startswith("encoder")
    }.items() <= {name: t.shape for name, t in more.items()}.items()
