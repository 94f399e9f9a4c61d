"""Plain state dicts: in whatever they lie, under whatever prefix."""

from pathlib import Path

import pytest
import torch
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.mapping import NameMapping
from fewvox.seg.neighbours.state_dict import of_state_dict, tensors_in
from fewvox.seg.networks.registry import build

WHERE = Path("model.pt")


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize(
    "container", [(), ("state_dict",), ("model_state_dict",), ("model",), ("a", "teacher")]
)
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.backbone.", "0.layers."])
@pytest.mark.parametrize("names", ["own", "nnunet"])
def test_architecture_and_tensors_are_found(
    own_weights, nnunet_weights, architecture, container, prefix, names
):
    weights = own_weights if names == "own" else nnunet_weights
    content = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    for key in reversed(container):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    found = of_state_dict(WHERE, content)
    assert found.architecture == architecture
    assert same(found.tensors, own_weights)
    assert found.trained == ("encoder", "decoder", "output")
    assert found.contract.preprocessing is None
    assert {"spacing", "normalisation", "patch"} <= {*found.contract.unknown}
    assert found.labels is found.seen is None
    if prefix or container:
        assert any("taken off the names" in note for note in found.notes)
    build(found.architecture).load_state_dict(found.tensors, strict=True)


def test_an_encoder_alone_needs_its_strides(own_weights, architecture, tmp_path):
    content = {
        f"net.{n.removeprefix('encoder.')}": t for n, t in own_weights.items() if n.startswith("encoder.")
    }
    with pytest.raises(SourceError, match=r"encoder without the transposed.*strides: \[\[1, 2, 2\]"):
        of_state_dict(WHERE, content)
    mapping = NameMapping(path=tmp_path, rules={}, strides=architecture.topology.strides)
    found = of_state_dict(WHERE, content, mapping)
    assert found.trained == ("encoder",)
    assert found.architecture.topology == architecture.topology
    assert found.architecture.in_channels == 2
    assert same(found.tensors, {n: t for n, t in own_weights.items() if n.startswith("encoder.")})


@pytest.mark.parametrize("strides", [((2, 2, 2),), ((1, 2, 2), (3, 3, 3)), ((1, 2, 2),) * 3])
def test_strides_that_cannot_be_are_refused(own_weights, tmp_path, strides):
    with pytest.raises(SourceError, match="stride"):
        of_state_dict(WHERE, own_weights, NameMapping(path=tmp_path, rules={}, strides=strides))


def test_a_mapping_chooses_among_several_and_names_foreign_tensors(own_weights, tmp_path):
    content = {f"{which}.{n}": t for which in ("student", "teacher") for n, t in own_weights.items()}
    with pytest.raises(SourceError, match="2 networks"):
        of_state_dict(WHERE, content)
    found = of_state_dict(WHERE, content, NameMapping(path=tmp_path, rules={r"teacher\.": ""}))
    assert same(found.tensors, own_weights)
    foreign = {name.replace("encoder.", "down."): tensor for name, tensor in own_weights.items()}
    found = of_state_dict(WHERE, foreign, NameMapping(path=tmp_path, rules={"down": "encoder", "": ""}))
    assert same(found.tensors, own_weights)


def test_half_precision_is_told(own_weights):
    found = of_state_dict(WHERE, {name: tensor.bfloat16() for name, tensor in own_weights.items()})
    assert {t.dtype for t in found.tensors.values()} == {torch.float32}
    assert "tensors of type bfloat16 were turned into float32" in found.notes


def test_a_rectifier_before_the_normalisation_is_not_taken_for_ours(nnunet_weights):
    content = {n.replace("all_modules.1.", "all_modules.2."): t for n, t in nnunet_weights.items()}
    with pytest.raises(SourceError, match=r"all_modules\.2"):
        of_state_dict(WHERE, content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, r"keys \(none\)"),
        ({"foo": 1, "state_dict": {}}, "no tensors, but the keys foo, state_dict"),
        ({"foo": torch.zeros(3)}, r"first convolution of a 3D network that is known here \(foo\)"),
    ],
)
def test_a_wrong_container_is_told_with_what_is_in_it(content, told):
    with pytest.raises(SourceError, match=told):
        of_state_dict(WHERE, content)


def test_mappings_within_themselves_and_twice_are_entered_once():
    inner: dict = {"a": torch.zeros(1)}
    inner["self"] = inner
    assert [*tensors_in({"x": inner, "y": inner, 0: {1: torch.zeros(1)}})] in (["0.1", "x.a"], ["0.1", "y.a"])
