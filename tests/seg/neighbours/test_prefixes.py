"""The network in a file, whatever stands before its names."""

from pathlib import Path

import pytest
import torch
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.known import OWN, PLAIN
from fewvox.seg.neighbours.prefixes import place_of, plain_names
from hypothesis import given
from hypothesis import strategies as st

WHERE = Path("model.pth")
PREFIXES = ["", "backbone.", "0.layers.", "model.net.", "state_dict.student.backbone.", "encoder_q."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("names", ["own", "nnunet"])
def test_a_prefix_is_found_and_taken_off(own_weights, nnunet_weights, prefix, names):
    weights = plain_names(own_weights if names == "own" else nnunet_weights, WHERE)[0]
    tensors = {f"{prefix}{name}": tensor for name, tensor in weights.items()} | {
        "head.0.weight": torch.zeros(2)
    }
    place = place_of(tensors, WHERE)
    assert (place.known, place.prefix) == (OWN if names == "own" else PLAIN, prefix)
    inside = place.inside(tensors)
    assert {name: inside[name] for name in weights}.keys() == weights.keys()
    if prefix:
        assert f"taken off the names: '{prefix}'" in place.notes(tensors)
        assert "not of the network: head.0.weight" in place.notes(tensors)


@pytest.mark.parametrize("prefix", ["encoder_q.", "online_encoder.", "backbone.", ""])
@pytest.mark.parametrize("names", ["own", "nnunet"])
def test_an_encoder_alone_is_one_whatever_it_is_called(own_weights, nnunet_weights, prefix, names):
    weights = plain_names(own_weights if names == "own" else nnunet_weights, WHERE)[0]
    encoder = {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}
    tensors = {prefix + name.removeprefix("encoder."): tensor for name, tensor in encoder.items()}
    place = place_of(tensors, WHERE)
    assert place.encoder_alone
    assert place.inside(tensors).keys() == encoder.keys()


@given(wrapped=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["module", "_orig_mod"])), max_size=4))
def test_wrappers_are_taken_out_wherever_they_stand(wrapped):
    parts = ["encoder", "0", "0", "0", "weight"]
    for place, wrapper in wrapped:
        parts.insert(place, wrapper)
    found, notes = plain_names({".".join(parts): torch.zeros(1)}, WHERE)
    assert [*found] == ["encoder.0.0.0.weight"]
    assert bool(notes) == bool(wrapped)


def test_the_names_that_nnunet_lists_twice_are_one(nnunet_weights):
    found, notes = plain_names(nnunet_weights, WHERE)
    assert not notes
    assert not any("all_modules" in name or name.startswith("decoder.encoder") for name in found)
    assert found["encoder.stages.0.0.convs.0.norm.bias"] is not None


def test_names_that_are_one_but_differ_are_refused(nnunet_weights):
    changed = dict(nnunet_weights)
    changed["decoder.encoder.stages.1.0.convs.0.conv.weight"] = torch.zeros(8, 4, 3, 3, 3)
    with pytest.raises(SourceError, match=r"decoder\.encoder\.stages\.1.*other values"):
        plain_names(changed, WHERE)


@pytest.mark.parametrize("ends", [("", "ema."), ("student.", "teacher."), ("model.", "model.ema.")])
def test_two_networks_are_an_error_that_names_both(own_weights, ends):
    tensors = {f"{end}{name}": tensor for end in ends for name, tensor in own_weights.items()}
    with pytest.raises(SourceError, match=rf"2 networks.*'{ends[0]}encoder.*'{ends[1]}encoder.*--mapping"):
        place_of(tensors, WHERE)


def test_the_encoder_that_the_file_names_is_taken_of_two(own_weights):
    tensors = {f"{end}{name}": t for end in ("net.online_", "net.target_") for name, t in own_weights.items()}
    assert place_of(tensors, WHERE, "online_encoder.").prefix == "net.online_encoder."
    with pytest.raises(SourceError, match="first convolution"):
        place_of(tensors, WHERE, "stages.")


@pytest.mark.parametrize(
    "names",
    [
        ["swinViT.patch_embed.proj.weight", "swinViT.layers1.0.blocks.0.norm1.weight"],
        ["model.0.conv.unit0.conv.weight"],
        ["foo"],
        [],
    ],
)
def test_names_of_other_networks_are_told_with_what_is_expected(names):
    tensors = {name: torch.zeros(4, 1, 3, 3, 3) for name in names}
    with pytest.raises(
        SourceError, match=rf"{len(names)} tensors.*{', '.join(names)}.*encoder\.stages\.0.*--mapping"
    ):
        place_of(tensors, WHERE)


def test_a_2d_network_of_the_same_names_is_none(own_weights):
    tensors = {name: t[..., 0] if t.ndim == 5 else t for name, t in own_weights.items()}
    with pytest.raises(SourceError, match="first convolution of a 3D network"):
        place_of(tensors, WHERE)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.zeros(2, device="meta"), "without values"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.zeros(1).expand(10**5, 10**5, 10**3), "over 4 bytes"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_has_no_values_is_not_compared(tensor, told, first):
    pair = (tensor, torch.zeros(2)) if first else (torch.zeros(2), tensor)
    with pytest.raises(SourceError, match=rf"a\.weight: .*{told}"):
        plain_names({"a.weight": pair[0], "module.a.weight": pair[1]}, Path("model.pth"))
