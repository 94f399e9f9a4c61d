"""Every tensor of a file's network is accounted for."""

from pathlib import Path

import pytest
import torch
from fewvox.seg.neighbours.arrival import arrived, shapes
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.known import OWN, PLAIN
from fewvox.seg.neighbours.prefixes import plain_names
from fewvox.seg.networks.registry import build

WHERE = Path("model.pth")


@pytest.fixture
def weights(nnunet_weights):
    return plain_names(nnunet_weights, WHERE)[0]


def without(tensors, *parts):
    return {name: t for name, t in tensors.items() if not name.startswith(parts)}


def test_shapes_are_those_of_the_network_itself(architecture):
    assert shapes(architecture) == {n: t.shape for n, t in build(architecture, 0).state_dict().items()}


def test_tensors_of_nnunet_come_by_our_names_in_our_order(architecture, weights, own_weights):
    found = arrived(PLAIN, architecture, weights, WHERE)
    assert [*found.tensors] == [*own_weights]
    assert all(torch.equal(found.tensors[name], own_weights[name]) for name in own_weights)
    assert found.parts == ("encoder", "decoder", "output")
    assert found.notes == ()


def test_parts_that_are_not_there_are_left_out(architecture, own_weights):
    found = arrived(OWN, architecture, without(own_weights, "output", "decoder"), WHERE)
    assert found.parts == ("encoder",)
    assert {name.split(".")[0] for name in found.tensors} == {"encoder"}
    assert arrived(OWN, architecture, without(own_weights, "output"), WHERE).parts == ("encoder", "decoder")


def test_convolutions_without_a_bias_get_one_of_0(architecture, own_weights):
    names = [n for n, s in shapes(architecture).items() if n.endswith((".0.bias", "up.bias", "output.bias"))]
    left = {name: t for name, t in own_weights.items() if name not in names}
    found = arrived(OWN, architecture, left, WHERE)
    assert all((found.tensors[name] == 0).all() for name in names)
    assert found.notes == (f"{len(names)} convolutions have no bias: it is 0 here, which is the same",)
    assert found.tensors.keys() == own_weights.keys()


def test_swapped_keys_are_refused_by_their_shapes(architecture, own_weights):
    a, b = "encoder.1.0.0.weight", "encoder.1.1.0.weight"
    swapped = {**own_weights, a: own_weights[b], b: own_weights[a]}
    with pytest.raises(
        SourceError, match=r"encoder\.1\.0\.0\.weight has the shape \(8, 8, 3, 3, 3\), not \(8, 4"
    ):
        arrived(OWN, architecture, swapped, WHERE)


@pytest.mark.parametrize(
    "name", ["decoder.stages.0.convs.1.norm.weight", "encoder.stages.2.0.convs.1.conv.weight"]
)
def test_a_missing_tensor_is_named_as_the_file_would(architecture, weights, name):
    with pytest.raises(SourceError, match=rf"without {name}"):
        arrived(PLAIN, architecture, without(weights, name), WHERE)


@pytest.mark.parametrize(
    "name", ["encoder.stages.0.0.convs.2.conv.weight", "encoder.stages.0.0.convs.0.norm.running_mean"]
)
def test_a_tensor_without_a_place_is_refused(architecture, weights, name):
    with pytest.raises(SourceError, match=rf"does not have: {name}"):
        arrived(PLAIN, architecture, {**weights, name: torch.zeros(4)}, WHERE)


def test_outputs_for_deep_supervision_are_no_mistake(architecture, weights):
    assert "decoder.seg_layers.0.weight" in weights
    arrived(PLAIN, architecture, weights, WHERE)


def test_weights_that_are_not_finite_are_refused(architecture, own_weights):
    broken = {**own_weights, "output.bias": torch.full((3,), float("nan"))}
    with pytest.raises(SourceError, match=r"output\.bias: values that are NaN"):
        arrived(OWN, architecture, broken, WHERE)
