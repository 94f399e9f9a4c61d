"""The proof by a probe: the same weights give the same, and a change shows where it is."""

import copy
import json

import pytest
import torch
from fewvox.data.settings import parse, plain
from fewvox.seg.networks.topology import Topology
from fewvox.seg.networks.unet import UNet
from fewvox.seg.probe import Probe, deviations, probe_input, probed
from safetensors.torch import load, save

BLOCKS = ["encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1", "output"]


def make(strides=((1, 2, 2), (2, 2, 2)), channels=2, width=4, kernel=(3, 3, 3)) -> UNet:
    levels = len(strides) + 1
    features = tuple(width * 2**level for level in range(levels))
    return UNet(channels, 3, Topology(features=features, kernels=(kernel,) * levels, strides=strides))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return make()


def test_the_probe_input_is_the_same_for_ever():
    """Another input would make every stored probe useless."""
    found = probe_input((2, 4, 6, 8))
    assert (found.shape, found.dtype) == ((1, 2, 4, 6, 8), torch.float64)
    values = [found[0, 0, 0, 0, 0], found[0, 0, 1, 2, 3], found[0, 1, 3, 5, 7], found.mean(), found.std()]
    expected = [-0.5, -0.433949991722029, -1.9769240286507261, 0.10028180642450975, 0.8740188940748757]
    assert [float(v) for v in values] == pytest.approx(expected, abs=1e-12)
    # nothing repeats: no two voxels, and no two channels, look alike
    assert found.unique().numel() == found.numel()


def test_the_same_weights_give_the_same_with_any_threads_and_after_a_file(network):
    probe = probed(network, 2)
    assert list(probe.blocks) == BLOCKS
    again = parse(Probe, json.loads(json.dumps(plain(probe))), "probe")
    assert again == probe
    other, threads = make(), torch.get_num_threads()
    other.load_state_dict(load(save(network.state_dict())))
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert max(deviations(other, again).values()) < 1e-9
    finally:
        torch.set_num_threads(threads)


def test_a_changed_tensor_shows_in_its_block_and_downstream(network):
    probe, changed = probed(network, 2), copy.deepcopy(network)
    with torch.no_grad():
        changed.decoder[1].convolutions[0][0].weight[0, 0] += 0.1
    found = deviations(changed, probe)
    assert all(found[block] < 1e-9 for block in BLOCKS[:4])
    assert all(found[block] > 1e-3 for block in BLOCKS[4:])


@pytest.mark.parametrize("block", BLOCKS)
def test_other_weights_of_any_block_show_in_it(network, block):
    probe, changed = probed(network, 2), copy.deepcopy(network)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in changed.get_submodule(block).parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    found = deviations(changed, probe)
    assert found[block] > 1e-3
    before = BLOCKS[: BLOCKS.index(block)]
    assert all(found[other] < 1e-9 for other in before)


def test_a_network_that_gives_no_numbers_is_infinitely_far(network):
    probe = probed(network, 2)
    with torch.no_grad():
        network.output.bias[:] = torch.nan
    assert deviations(network, probe)["output"] == float("inf")


def test_a_block_that_is_constant_is_measured_in_its_own_unit(network):
    with torch.no_grad():
        network.output.weight[:] = 0
        network.output.bias[:] = 1
    probe = probed(network, 2)
    assert probe.blocks["output"].std == 0
    with torch.no_grad():
        network.output.bias[:] = 3
    assert deviations(network, probe)["output"] == 2


@pytest.mark.parametrize("training", [True, False])
def test_network_and_torch_stay_as_they_were(network, training):
    network.train(training)
    before, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    probed(network, 2)
    assert network.training == training
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("strides", "kernel", "shape"),
    [
        (((2, 2, 2),) * 4, (3, 3, 3), (2, 16, 16, 32)),
        (((1, 2, 2), (2, 2, 2)), (3, 3, 3), (2, 4, 4, 4)),
        (((1, 2, 2),) * 3, (1, 3, 3), (2, 1, 8, 16)),
        ((), (3, 3, 3), (2, 4, 4, 4)),
        (((2, 2, 2),), (3, 3, 3), (2, 4, 4, 4)),
    ],
)
def test_the_probe_is_as_small_as_every_level_allows(strides, kernel, shape):
    network = make(strides, kernel=kernel)
    assert probed(network, 2).shape == shape
    voxels = torch.tensor(shape[1:]) // torch.tensor(network.multiple)
    assert voxels.prod() >= 2


def test_a_network_that_cannot_read_the_probe_is_refused(network):
    probe = probed(network, 2)
    with pytest.raises(ValueError, match="a probe of 2 channels, and a network of 1"):
        deviations(make(channels=1), probe)
    with pytest.raises(ValueError, match=r"must be a multiple of \(8, 8, 8\)"):
        deviations(make(((2, 2, 2),) * 3), probe)


def test_levels_that_only_one_has_are_left_out(network):
    shallow = make(((1, 2, 2),))
    shallow.encoder[:2].load_state_dict(network.encoder[:2].state_dict())
    found = deviations(shallow, probed(network, 2))
    assert found.keys() == {"encoder.0", "encoder.1", "decoder.0", "output"}
    assert max(found["encoder.0"], found["encoder.1"]) < 1e-9
