"""What every registered network keeps to on any plan: the checks of plugins, and stricter ones."""

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.engine.estimate import training_bytes
from fewvox.seg.networks import network_checks
from fewvox.seg.networks.blocks import InstanceNorm
from fewvox.seg.networks.network import Network
from fewvox.seg.networks.network_checks import CHECKS, SITUATIONS, lively
from fewvox.seg.networks.registry import NETWORKS, Architecture, build
from torch import nn

# b1 to b3 are b0 and b4 at other widths and depths, which test_efficientnet.py counts
NAMES = [name for name in NETWORKS if name not in ("efficientnet_b1", "efficientnet_b2", "efficientnet_b3")]
# features of each level where they double up to the plan's maximum
FEATURES = {"features at their most": (4, 6, 6), "odd extents": (4, 8), "no pooling": (4,)}
# that Swin UNETR refuses a plan without pooling is in test_swin_unetr.py
PLANNED = [
    (name, case)
    for name in NAMES
    for case in SITUATIONS
    if (name, case) != ("swin_unetr", "no pooling") and (name != "efficientnet_b4" or case == "anisotropic")
]
# the others are the same on any plan
ON_EVERY_PLAN = (
    network_checks.levels_shrink_by_the_strides_and_grow_back,
    network_checks.parts_compose_to_the_whole,
)


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def described(name):
    """The architecture that a plan asks for: 2 channels, 3 classes."""

    def describe(case: str) -> Architecture:
        return SITUATIONS[case].architecture(name)

    return describe


def images_of(case: str, batch: int = 2) -> torch.Tensor:
    return SITUATIONS[case].images(batch)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_network_keeps_to_the_contract(name, check):
    check(name, SITUATIONS["isotropic"])


@pytest.mark.parametrize("check", ON_EVERY_PLAN, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "case"), PLANNED)
def test_a_network_keeps_its_shapes_and_parts_on_every_plan(check, name, case):
    check(name, SITUATIONS[case])


@pytest.mark.parametrize("case", SITUATIONS)
def test_features_double_up_to_the_plan_s_maximum(case):
    for name in ("unet", "residual_unet", "hrnet"):
        features = SITUATIONS[case].architecture(name).topology.features
        assert features == FEATURES.get(case, (4, 8, 16))


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


def test_checkpointing_takes_less_memory(described):
    network, extent = lively(described("anisotropic")).train(), SITUATIONS["anisotropic"].extents[0]
    kept = training_bytes(network, 2, 2, extent)
    network.checkpointing = True
    assert training_bytes(network, 2, 2, extent) < kept


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


def mixed(self, images):
    logits = self.output(self.features(images))
    return logits + logits.mean(dim=0, keepdim=True)


def overwriting(self, images):
    return self.output(self.features(images.mul_(2)))


def unfinished(self, images):
    return self.output(self.features(images)) / 0


SPOILT = {
    "items_of_a_batch_do_not_mix": {"forward": mixed},
    "parts_compose_to_the_whole": {"forward": mixed},
    "an_input_is_left_as_it_was": {"forward": overwriting},
    "half_precision_is_finite": {"forward": unfinished},
    "the_gradient_reaches_every_block": {"features": lambda self, images: self.encode(images)[0]},
    "other_extents_are_refused": {"_check": lambda self, images: None},
    "levels_shrink_by_the_strides_and_grow_back": {"decode": lambda self, encoded: [encoded[0], encoded[0]]},
}


@pytest.mark.parametrize("check", SPOILT)
def test_a_check_finds_what_it_is_for(monkeypatch, check):
    for part, other in SPOILT[check].items():
        monkeypatch.setattr(f"fewvox.seg.networks.unet.UNet.{part}", other)
    # of levels of so few voxels nothing is asked in 16 bits
    situation = "odd extents" if check == "half_precision_is_finite" else "isotropic"
    with pytest.raises((AssertionError, RuntimeError)):
        getattr(network_checks, check)("unet", SITUATIONS[situation])


def test_a_plan_that_a_network_cannot_follow_is_refused_by_it():
    with pytest.raises(UserError, match="without pooling"):
        SITUATIONS["no pooling"].architecture("swin_unetr")


def test_situations_hold_together():
    for situation in SITUATIONS.values():
        for stride, fine, coarse in zip(
            situation.strides, situation.extents[:-1], situation.extents[1:], strict=True
        ):
            assert tuple(s * c for s, c in zip(stride, coarse, strict=True)) == fine
