"""Networks by name: a description gives the same network."""

import json

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.data.settings import SettingsError, parse, plain
from fewvox.seg.networks.registry import NETWORKS, Architecture, architecture_for, build


def test_a_seeded_network_leaves_torch_s_generator_alone(make_plan):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(architecture_for(make_plan()), 0)
    assert torch.equal(torch.rand(3), expected)


def test_a_seeded_network_does_not_depend_on_torch_s_generator(make_plan):
    architecture = architecture_for(make_plan())
    torch.manual_seed(1)
    a = build(architecture, 0).state_dict()
    torch.manual_seed(2)
    b = build(architecture, 0).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_architecture_survives_json(make_plan, name):
    architecture = architecture_for(make_plan(strides=((1, 2, 2), (2, 2, 2)), channels=("a", "b")), name)
    assert architecture.name == name
    again = parse(Architecture, json.loads(json.dumps(plain(architecture))), "test")
    assert again == architecture
    build(again).load_state_dict(build(architecture).state_dict(), strict=True)


def test_the_plan_decides_channels_and_classes(make_plan):
    architecture = architecture_for(make_plan(channels=("a", "b", "c")))
    assert (architecture.in_channels, architecture.classes) == (3, 3)
    assert architecture != architecture_for(make_plan())


def test_overlapping_classes_have_an_output_each_and_the_background_none(make_plan):
    table = LabelTable(kind="overlapping", values=(0, 1, 2))
    assert architecture_for(make_plan(labels=table)).classes == 2


def test_a_plan_without_labels_gets_one_output_channel(make_plan):
    assert architecture_for(make_plan(labels=None)).classes == 1


def test_an_unknown_network_is_refused_with_the_known_names(make_plan):
    with pytest.raises(UserError, match="unet"):
        architecture_for(make_plan(), "vnet")


def test_a_name_that_is_not_in_the_table_is_a_mistake_in_a_file(make_plan):
    values = plain(architecture_for(make_plan())) | {"name": "vnet"}
    with pytest.raises(SettingsError, match=r"'name' is 'vnet': no such network; there are: .*residual_unet"):
        parse(Architecture, values, "test")


def test_every_network_is_told_in_a_sentence():
    assert all(registered.summary.endswith(".") for registered in NETWORKS.values())


def test_a_plan_alone_asks_for_the_plain_network(make_plan):
    assert architecture_for(make_plan()) == architecture_for(make_plan(), "unet")


def test_an_architecture_written_before_there_were_residual_blocks_is_read(make_plan):
    architecture = architecture_for(make_plan())
    values = plain(architecture)
    del values["topology"]["blocks"]
    assert parse(Architecture, values, "test") == architecture


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("unet", {"blocks": [1, 3]}),
        ("residual_unet", {"blocks": []}),
        ("residual_unet", {"blocks": [1]}),
        ("residual_unet", {"blocks": [1, 0]}),
        ("unet", {"kernels": [[3, 3, 3]]}),
        ("unet", {"strides": []}),
    ],
)
def test_levels_that_do_not_belong_together_are_refused(make_plan, name, fields):
    values = plain(architecture_for(make_plan(), name))
    values["topology"] |= fields
    with pytest.raises(SettingsError, match=r"blocks|levels"):
        parse(Architecture, values, "test")


def test_a_misspelt_architecture_is_refused(make_plan):
    values = plain(architecture_for(make_plan())) | {"width": 8}
    with pytest.raises(SettingsError, match="width"):
        parse(Architecture, values, "test")
