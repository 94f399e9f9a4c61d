"""What every network keeps to on any plan, ours and those of other packages: shapes, parts, weights.

A check raises AssertionError with what it found. `fewvox check-plugin` and the tests run the same ones.
"""

# Shapes: B = batch, C = channels, K = classes.

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...data.plan import Stride, Training
from ...data.volume import Shape
from .network import Network
from .registry import Architecture, build, find_network

CHANNELS, CLASSES = 2, 3


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The poolings of a plan, the extents of the levels that follow from them, and the most features."""

    strides: tuple[Stride, ...]
    extents: tuple[Shape, ...]
    max_width: int = 320

    def architecture(self, name: str, channels: int = CHANNELS, classes: int = CLASSES) -> Architecture:
        """What a plan of width 4 asks for; raises UserError where the network cannot follow it."""
        training = Training(
            patch=self.extents[0], strides=self.strides, width=4, max_width=self.max_width, batch=2
        )
        levels = find_network(name).levels(training)
        return Architecture(name=name, in_channels=channels, classes=classes, topology=levels)

    def images(self, batch: int = 2) -> Tensor:
        """Noise (B, C, Z, Y, X)."""
        shape = (batch, CHANNELS, *self.extents[0])
        return torch.randn(shape, generator=torch.Generator().manual_seed(2))


SITUATIONS: dict[str, Situation] = {
    "isotropic": Situation(
        strides=((2, 2, 2), (2, 2, 2)), extents=((8, 8, 12), (4, 4, 6), (2, 2, 3)), max_width=16
    ),
    "anisotropic": Situation(strides=((1, 2, 2), (2, 2, 2)), extents=((4, 8, 8), (4, 4, 4), (2, 2, 2))),
    "odd extents": Situation(strides=((1, 2, 1),), extents=((3, 10, 7), (3, 5, 7))),
    "features at their most": Situation(
        strides=((2, 2, 2), (1, 2, 2)), extents=((4, 8, 8), (2, 4, 4), (2, 2, 2)), max_width=6
    ),
    "single slice": Situation(strides=((1, 2, 2), (1, 2, 2)), extents=((1, 8, 8), (1, 4, 4), (1, 2, 2))),
    "no pooling": Situation(strides=(), extents=((3, 5, 7),)),
    "single-voxel bottleneck": Situation(
        strides=((2, 2, 2), (2, 2, 2)), extents=((4, 4, 4), (2, 2, 2), (1, 1, 1))
    ),
}


def lively(architecture: Architecture) -> Network:
    """The network with no weight at 0, where residual blocks begin."""
    network = build(architecture, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def levels_shrink_by_the_strides_and_grow_back(name: str, situation: Situation) -> None:
    """Features of each level have the extent that the strides leave, and logits that of the image."""
    architecture, images = situation.architecture(name), situation.images()
    network = build(architecture)
    encoded = network.encode(images)
    decoded = network.decode(encoded)
    features = zip(architecture.topology.features, situation.extents, strict=True)
    expected = [(2, number, *extent) for number, extent in features]
    for part, levels, shapes in (
        ("encoder", encoded, expected),
        ("decoder", decoded, expected[-2::-1] or expected),
    ):
        found = [tuple(level.shape) for level in levels]
        assert found == shapes, f"{part} levels of {found}, where the plan asks for {shapes}"
    logits = tuple(network(images).shape)
    assert logits == (2, CLASSES, *situation.extents[0]), f"logits of shape {logits}"


def parts_compose_to_the_whole(name: str, situation: Situation) -> None:
    """Encoder, decoder and output, one after the other, give what the network gives."""
    network, images = lively(situation.architecture(name)).eval(), situation.images()
    whole, features = network(images), network.features(images)
    composed = network.output(network.decode(network.encode(images))[-1])
    assert torch.equal(composed, whole), "encode, decode and output give other logits than forward"
    assert torch.equal(network.output(features), whole), "the output of `features` is not that of forward"


def the_gradient_reaches_every_block(name: str, situation: Situation) -> None:
    """In every encoder and decoder level and in the output something learns, and all gradients are finite."""
    network, images = lively(situation.architecture(name)).train(), situation.images()
    network(images).square().mean().backward()
    learning: dict[str, bool] = {}
    for tensor, p in network.named_parameters():
        assert p.grad is not None, f"no gradient reaches {tensor}"
        assert p.grad.isfinite().all(), f"the gradient of {tensor} is not finite"
        learning[_block(tensor)] = learning.get(_block(tensor), False) or bool(p.grad.norm() > 0)
    idle = [block for block, learns in learning.items() if not learns]
    assert not idle, f"no gradient but 0 reaches {', '.join(idle)}"


def parts_are_named_by_level(name: str, situation: Situation) -> None:
    """Tensors are called encoder.0, ... (finest first), decoder.0, ... (coarsest first) and output."""
    levels = len(situation.extents)
    expected = {
        "output",
        *(f"encoder.{i}" for i in range(levels)),
        *(f"decoder.{i}" for i in range(levels - 1)),
    }
    found = {_block(tensor) for tensor in build(situation.architecture(name)).state_dict()}
    assert found == expected, f"blocks {', '.join(sorted(found))}, not {', '.join(sorted(expected))}"


def the_first_weights_read_the_image(name: str, situation: Situation) -> None:
    """The first parameter is that of the first convolution, which has the channels of the image."""
    network = build(situation.architecture(name))
    first = next(network.parameters())
    assert first is network.first_convolution.weight, "the first parameter is not the first convolution's"
    assert first.shape[1] == CHANNELS, (
        f"the first convolution reads {first.shape[1]} channels, not {CHANNELS}"
    )
    of_modules = next(m for m in network.modules() if isinstance(m, nn.Conv3d))
    assert of_modules.weight is first, "another convolution stands before it among the modules"


def any_number_of_channels_and_classes(name: str, situation: Situation) -> None:
    """It takes what it is told to."""
    for channels, classes in ((1, 2), (5, 7)):
        network = build(situation.architecture(name, channels, classes))
        logits = network(torch.zeros(1, channels, *situation.extents[0]))
        assert logits.shape[1] == classes, f"{logits.shape[1]} channels of logits for {classes} classes"


def weights_go_around_through_a_state_dict(name: str, situation: Situation) -> None:
    """A network with the weights of another one gives what that one gives."""
    network, images = lively(situation.architecture(name)).eval(), situation.images()
    other = build(situation.architecture(name)).eval()
    assert not torch.equal(other(images), network(images)), "other weights give the same logits"
    other.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(other(images), network(images)), "the same weights give other logits"


def same_seed_same_weights(name: str, situation: Situation) -> None:
    """Its first weights follow from the seed."""
    architecture = situation.architecture(name)
    a, b, other = (build(architecture, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(a[key], b[key]) for key in a), "the same seed gives other weights"
    assert not all(torch.equal(a[key], other[key]) for key in a), "another seed gives the same weights"


def items_of_a_batch_do_not_mix(name: str, situation: Situation) -> None:
    """An item has the same logits whatever stands beside it, in training too."""
    network, images = lively(situation.architecture(name)).train(), situation.images(batch=3)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)


def an_input_is_left_as_it_was(name: str, situation: Situation) -> None:
    """Images are not overwritten."""
    images = situation.images()
    before = images.clone()
    lively(situation.architecture(name))(images)
    assert torch.equal(images, before), "the image was overwritten"


def other_extents_are_refused(name: str, situation: Situation) -> None:
    """An axis that is no multiple of the product of its strides is a ValueError."""
    network = build(situation.architecture(name))
    for axis, multiple in enumerate(network.multiple):
        shape = list(situation.extents[0])
        shape[axis] += 1
        if multiple == 1:
            continue
        try:
            network(torch.zeros(1, CHANNELS, *shape))
        except ValueError:
            continue
        raise AssertionError(f"an extent of {shape} is taken, whose multiple is {network.multiple}")


def it_is_built_without_values(name: str, situation: Situation) -> None:
    """On torch's meta device it has the same tensors and the same shapes; files are looked at so."""
    architecture = situation.architecture(name)
    with torch.device("meta"):
        network = build(architecture, 0)
    logits = network(torch.empty(situation.images().shape, device="meta"))
    assert logits.shape == (2, CLASSES, *situation.extents[0]), f"logits of shape {tuple(logits.shape)}"
    filled = build(architecture, 0).state_dict()
    found = {tensor: t.shape for tensor, t in network.state_dict().items()}
    assert found == {tensor: t.shape for tensor, t in filled.items()}, "it has other tensors there"


def checkpointing_gives_the_same_gradients(name: str, situation: Situation) -> None:
    """A network that computes its blocks again on the way back learns the same."""
    network, images = lively(situation.architecture(name)).train(), situation.images()
    expected = _gradients(network, images)
    network.checkpointing = True
    torch.testing.assert_close(_gradients(network, images), expected, rtol=1e-5, atol=1e-7)


def half_precision_is_finite(name: str, situation: Situation) -> None:
    """Under autocast to bfloat16 logits and gradients are finite."""
    # on a CPU torch (2.13) leaves what was in memory in such gradients of convolutions on a dozen voxels
    if any(math.prod(extent) < 27 for extent in situation.extents):
        return
    network, images = lively(situation.architecture(name)).train(), situation.images()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    assert logits.isfinite().all(), "logits are not finite"
    logits.float().square().mean().backward()
    wrong = [n for n, p in network.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not wrong, f"gradients of {', '.join(wrong)} are not finite"


def _block(tensor: str) -> str:
    part, level, *_ = tensor.split(".")
    return part if part == "output" else f"{part}.{level}"


def _gradients(network: Network, images: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    (network(images).square() / 2).mean().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


Check = Callable[[str, Situation], None]
CHECKS: tuple[Check, ...] = (
    levels_shrink_by_the_strides_and_grow_back,
    parts_compose_to_the_whole,
    the_gradient_reaches_every_block,
    parts_are_named_by_level,
    the_first_weights_read_the_image,
    any_number_of_channels_and_classes,
    weights_go_around_through_a_state_dict,
    same_seed_same_weights,
    items_of_a_batch_do_not_mix,
    an_input_is_left_as_it_was,
    other_extents_are_refused,
    it_is_built_without_values,
    checkpointing_gives_the_same_gradients,
    half_precision_is_finite,
)
