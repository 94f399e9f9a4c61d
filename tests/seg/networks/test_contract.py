"""What every registered network keeps to, on any plan: shapes, parts, gradients and weights."""

import pytest
import torch
from fewvox.data.labels import LabelTable
from fewvox.seg.engine.estimate import training_bytes
from fewvox.seg.networks.blocks import InstanceNorm
from fewvox.seg.networks.network import Network
from fewvox.seg.networks.registry import NETWORKS, Architecture, architecture_for, build
from torch import nn

# b1 to b3 are b0 and b4 at other widths and depths, which test_efficientnet.py counts
NAMES = [name for name in NETWORKS if name not in ("efficientnet_b1", "efficientnet_b2", "efficientnet_b3")]
# name: (strides, extents of each level, features of each level where they double up to the plan's maximum)
CASES = {
    "isotropic": (((2, 2, 2), (2, 2, 2)), [(8, 8, 12), (4, 4, 6), (2, 2, 3)], (4, 8, 16)),
    "anisotropic": (((1, 2, 2), (2, 2, 2)), [(4, 8, 8), (4, 4, 4), (2, 2, 2)], (4, 8, 16)),
    "odd extents": (((1, 2, 1),), [(3, 10, 7), (3, 5, 7)], (4, 8)),
    "features at their most": (((2, 2, 2), (1, 2, 2)), [(4, 8, 8), (2, 4, 4), (2, 2, 2)], (4, 6, 6)),
    "single slice": (((1, 2, 2), (1, 2, 2)), [(1, 8, 8), (1, 4, 4), (1, 2, 2)], (4, 8, 16)),
    "no pooling": ((), [(3, 5, 7)], (4,)),
    "single-voxel bottleneck": (((2, 2, 2), (2, 2, 2)), [(4,) * 3, (2,) * 3, (1,) * 3], (4, 8, 16)),
}


# that Swin UNETR refuses a plan without pooling is in test_swin_unetr.py
PLANNED = [
    (name, case)
    for name in NAMES
    for case in CASES
    if (name, case) != ("swin_unetr", "no pooling") and (name != "efficientnet_b4" or case == "anisotropic")
]


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def described(name, make_plan):
    """The architecture that a plan asks for: 2 channels, 3 classes."""

    def describe(case: str) -> Architecture:
        strides, extents, features = CASES[case]
        plan = make_plan(
            patch=extents[0], strides=strides, width=4, max_width=features[-1], channels=("a", "b")
        )
        return architecture_for(plan, name)

    return describe


def lively(architecture: Architecture) -> Network:
    """The network with no weight at 0, where residual blocks begin."""
    network = build(architecture, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def images_of(case: str, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 2, *CASES[case][1][0], generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("name", "case"), PLANNED)
def test_levels_shrink_by_the_strides_and_grow_back_to_the_logits(described, name, case):
    _, extents, features = CASES[case]
    architecture = described(case)
    if name.endswith("unet") or name == "hrnet":
        assert architecture.topology.features == features
    network, images = build(architecture), images_of(case)
    encoded = network.encode(images)
    decoded = network.decode(encoded)
    expected = [(2, f, *e) for f, e in zip(architecture.topology.features, extents, strict=True)]
    assert [tuple(level.shape) for level in encoded] == expected
    assert [tuple(level.shape) for level in decoded] == (expected[-2::-1] or expected)
    assert network(images).shape == (2, 3, *extents[0])


@pytest.mark.parametrize(("name", "case"), PLANNED)
def test_encode_decode_and_output_compose_to_forward(described, case):
    network, images = lively(described(case)).eval(), images_of(case)
    composed = network.output(network.decode(network.encode(images))[-1])
    torch.testing.assert_close(composed, network(images), rtol=0, atol=0)
    torch.testing.assert_close(network.output(network.features(images)), composed, rtol=0, atol=0)


def taken_away(network: Network, images: torch.Tensor) -> set[str]:
    """Names of the biases that a normalisation takes away again, as it does of more than one voxel."""
    normalising = set()
    for module in network.modules():
        if isinstance(module, InstanceNorm):
            module.register_forward_hook(
                lambda norm, given, _: normalising.add(norm) if given[0].shape[2:].numel() > 1 else None
            )
    network(images)
    without = {
        f"{name}.0.bias"
        for name, pair in network.named_modules()
        if isinstance(pair, nn.Sequential)
        and isinstance(pair[0], nn.Conv3d)
        and pair[0].bias is not None
        and pair[1] in normalising
    }
    # a voxel that is alone attends to itself, wherever it is
    alone = [i for i, level in enumerate(network.encode(images)) if level.shape[2:].numel() == 1]
    return without | {
        name
        for name, _ in network.named_parameters()
        if name.endswith("relative_position_bias_table") and int(name.split(".")[1]) in alone
    }


@pytest.mark.parametrize(("name", "case"), PLANNED)
def test_the_gradient_reaches_all_but_the_biases_that_normalisation_takes_away(described, case):
    network, images = lively(described(case)).double().train(), images_of(case).double()
    (network(images).square() / 2).mean().backward()
    still = {n for n, p in network.named_parameters() if p.grad is None or float(p.grad.abs().max()) < 1e-12}
    assert still == taken_away(network, images)


def test_checkpointing_gives_the_same_gradients_in_less_memory(described):
    case = "anisotropic"
    network, images = lively(described(case)).train(), images_of(case)
    expected = gradients(network, images)
    kept = training_bytes(network, 2, 2, CASES[case][1][0])
    network.checkpointing = True
    found = gradients(network, images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert training_bytes(network, 2, 2, CASES[case][1][0]) < kept


def gradients(network: Network, images: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    (network(images).square() / 2).mean().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_checkpointing_computes_each_block_a_second_time_in_training_alone(described):
    network, images = build(described("isotropic"), 0), images_of("isotropic")
    network.checkpointing = True
    calls = []
    for block in (network.encoder[-1], network.decoder[0]):
        inner = next(module for module in block.modules() if isinstance(module, nn.Conv3d))
        inner.register_forward_hook(lambda *_: calls.append(1))
    network.train()(images).mean().backward()
    assert len(calls) == 4
    network.eval()(images).mean().backward()
    with torch.no_grad():
        network.train()(images)
    assert len(calls) == 8


def test_half_precision_gives_finite_logits_and_gradients(described):
    network, images = lively(described("isotropic")).train(), images_of("isotropic")
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    assert logits.isfinite().all()
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_it_is_built_without_values(described):
    with torch.device("meta"):
        network = build(described("anisotropic"), 0)
    assert network(torch.empty(1, 2, 4, 8, 8, device="meta")).shape == (1, 3, 4, 8, 8)
    filled = build(described("anisotropic"), 0).state_dict()
    assert {n: t.shape for n, t in network.state_dict().items()} == {n: t.shape for n, t in filled.items()}


def test_any_number_of_channels_and_classes(name, make_plan):
    for channels, classes in ((1, 2), (5, 7)):
        table = LabelTable(values=tuple(range(classes)))
        names = tuple(f"c{i}" for i in range(channels))
        plan = make_plan(channels=names, normalisation=("zscore",) * channels, labels=table)
        network = build(architecture_for(plan, name))
        assert network(torch.zeros(1, channels, 4, 8, 8)).shape == (1, classes, 4, 8, 8)
        assert network.first_convolution.in_channels == channels


def test_parts_are_named_by_level(described):
    names = build(described("anisotropic")).state_dict()
    parts = {name if name.startswith("output.") else ".".join(name.split(".")[:2]) for name in names}
    assert parts == {
        "encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1", "output.weight", "output.bias"
    }  # fmt: skip


def test_the_first_weights_are_those_that_read_the_image(described):
    network = build(described("isotropic"))
    first = next(network.parameters())
    assert first is network.first_convolution.weight
    assert first.shape[1] == 2
    assert next(m for m in network.modules() if isinstance(m, nn.Conv3d)).weight is first


@pytest.mark.parametrize("case", ["anisotropic", "features at their most"])
def test_weights_go_around_through_a_state_dict(described, case):
    network, images = lively(described(case)).eval(), images_of(case)
    other = build(described(case)).eval()
    assert not torch.equal(other(images), network(images))
    other.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(other(images), network(images))


def test_the_same_seed_gives_the_same_weights(described):
    architecture = described("isotropic")
    a, b, other = (build(architecture, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], other[key]) for key in a)


def test_items_of_a_batch_do_not_mix(described):
    network, images = lively(described("isotropic")).train(), images_of("isotropic", batch=3)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)


def test_an_input_is_left_as_it_was(described):
    images = images_of("anisotropic")
    before = images.clone()
    lively(described("anisotropic"))(images)
    assert torch.equal(images, before)


def test_a_single_voxel_bottleneck_trains(described):
    network = build(described("single-voxel bottleneck"), 0).train()
    images = images_of("single-voxel bottleneck")
    labels = (images[:, 0] > 0).long()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("shape", [(6, 8, 8), (8, 8, 9), (7, 8, 8)])
def test_extents_that_do_not_fit_the_strides_are_refused(described, shape):
    with pytest.raises(ValueError, match=r"multiple of \(4, 4, 4\)"):
        build(described("isotropic"))(torch.zeros(1, 2, *shape))


def test_an_axis_that_is_not_pooled_takes_any_extent(described):
    network = build(described("single slice"))
    assert network.multiple == (1, 4, 4)
    assert network(torch.zeros(1, 2, 3, 8, 8)).shape == (1, 3, 3, 8, 8)
