"""Augmentation: known changes are made to a view, and the network tells which ones.

Source: ours, from the closing question of the Biom3d thesis (Mougeot 2023). Nearest to it is AET (Zhang et
al. 2019, https://arxiv.org/abs/1901.04596, section 3), which tells the parameters of one transformation from
the features of the image before and after it. Here several changes are made at once, each by its own draw,
one view is all that is shown, and the answer to each is yes or no (binary cross-entropy), so that any
operation of `data/augment` can be asked for.

Views come upright and with their own grey values, as what has been done to them already could not be told
from what is done here.
"""

# Shapes: B = batch, C = channels, K = changes.

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from ...data.augment.bias_field import BiasField
from ...data.augment.chain import AnyOperation
from ...data.augment.draws import Draws
from ...data.augment.intensity import Blur, Gamma, Noise
from ...data.augment.low_resolution import LowResolution
from ...data.augment.masking import Cutout
from ...data.augment.operations import Operation
from ...data.errors import UserError
from ...data.settings import Probability, merged, plain, settings
from ...seg.networks.network import Network
from ...seg.networks.registry import Architecture
from ..heads import chosen_blocks, feature_widths, pool, read_features
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

Axis = Literal["z", "y", "x"]
_AXES: tuple[Axis, ...] = ("z", "y", "x")
# in the order in which an image comes about, so that each leaves what the ones before it did to be seen: what
# blurs stands before the noise. Stronger than to augment with, and never so weak that nothing is changed.
# Contrast and brightness are not among them: the first instance normalisation takes them away again. Nor are
# random curves, which would hide a gamma.
OPERATIONS: dict[str, AnyOperation] = {
    "gamma": Gamma(probability=0.5, gamma=(2.5, 4.0)),
    "bias_field": BiasField(probability=0.5, coefficient=0.5),
    "blur": Blur(probability=0.5, sigma=(1.0, 2.0)),
    "low_resolution": LowResolution(probability=0.5, channel_probability=1.0, scale=(0.25, 0.5)),
    "noise": Noise(probability=0.5, deviation=(0.3, 0.6)),
    "cutout": Cutout(probability=0.5, blocks=(2, 5), edge=(0.25, 0.5)),
}


def _over_default(said: Any) -> Any:
    """What a file says of the operations, over the default ones."""
    if not isinstance(said, Mapping):
        return said
    return merged({name: plain(operation) for name, operation in OPERATIONS.items()}, said, tag="op")


@settings
class AugmentationConfig:
    """Which changes are made and told; all of it is ours, there is no paper's value.

    `operations` are changes of grey values, in their order, each with its own `probability`: what a file says
    of one stands over the default, null leaves it out, and one of a new name (with its `op`) comes last. Each
    of the axes `flips` is flipped with `flip_probability`. `blocks` names the features that are pooled.
    """

    operations: Annotated[dict[str, AnyOperation | None], BeforeValidator(_over_default)] = field(
        default_factory=lambda: dict(OPERATIONS)
    )
    flips: tuple[Axis, ...] = _AXES
    flip_probability: Probability = 0.5
    hidden: Annotated[int, Field(ge=1)] = 256
    blocks: tuple[str, ...] = ("encoder", "decoder")

    @property
    def made(self) -> dict[str, Operation]:
        """The operations without those that were left out."""
        return {name: operation for name, operation in self.operations.items() if operation is not None}


def flipped_axes(config: AugmentationConfig, scope: Scope) -> tuple[int, ...]:
    """The axes (0 = z) that views are flipped along: those of the settings with more than one voxel."""
    return tuple(
        axis for axis, name in enumerate(_AXES) if name in config.flips and scope.shapes[0][axis] > 1
    )


def probabilities(config: AugmentationConfig, scope: Scope) -> dict[str, float]:
    """How often each change is made, by its name: the operations, then the flips.

    Raises UserError where there is none.
    """
    found = {name: operation.probability for name, operation in config.made.items()}
    found |= {f"flip_{_AXES[axis]}": config.flip_probability for axis in flipped_axes(config, scope)}
    if not found:
        raise UserError(
            "options.operations",
            found=f"no change that views of {scope.shapes[0]} voxels could show",
            rule="The network tells which of one change or more were made",
            remedy="Keep an operation, or a flip along an axis of several voxels",
        )
    return found


def with_changes(
    image: Tensor,
    operations: Mapping[str, Operation],
    axes: Sequence[int],
    flip_probability: float,
    seed: Sequence[int],
) -> tuple[Tensor, list[bool]]:
    """A changed copy of an image (C, Z, Y, X), and whether each operation and then each flip was made.

    Each draws by its name: none shifts the numbers of another.
    """
    image, made = image.clone(), []
    for name, operation in operations.items():
        draws = Draws((*seed, zlib.crc32(name.encode())))
        made.append(draws.chance(operation.probability))
        if made[-1]:
            image = operation(image, draws)
    chances = Draws(seed).numbers.random(len(_AXES))
    flips = [bool(chances[axis] < flip_probability) for axis in axes]
    image = image.flip([axis + 1 for axis, flip in zip(axes, flips, strict=True) if flip])
    return image, made + flips


def recognition_loss(logits_BK: Tensor, made_BK: Tensor) -> Tensor:
    """Binary cross-entropy in nats, mean over items and changes, shape (), in float32.

    `made_BK` are 1 where a change was made and 0 where not.
    """
    return F.binary_cross_entropy_with_logits(logits_BK.float(), made_BK.float())


class RecognitionHead(nn.Module):
    """Pooled features of the named blocks, through two layers, as logits (B, K) of the changes.

    Unlike the embedding head it has no batch normalisation: what was done to an item has nothing to do with
    the others, and of two items only the difference would be left.
    """

    def __init__(self, architecture: Architecture, config: AugmentationConfig, changes: int) -> None:
        super().__init__()
        self.blocks = chosen_blocks(architecture, config.blocks)
        widths = feature_widths(architecture)
        pooled = 2 * sum(widths[name] for name in self.blocks)
        self.layers = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Linear(pooled, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, changes),
        )

    def forward(self, network: Network, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, Z, Y, X)."""
        return self.layers(pool(read_features(network, images, self.blocks)))


@register_method("augmentation", AugmentationConfig)
class Augmentation(Method):
    """Known changes are made to a view, and the network tells which ones."""

    source = "ours; the closing question of Mougeot 2023 (Biom3d)"

    def __init__(self, network: Network, head: nn.Module, config: AugmentationConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.changes, self.axes = probabilities(config, scope), flipped_axes(config, scope)

    @staticmethod
    def views(config: AugmentationConfig) -> ViewSpec:  # noqa: ARG004
        """One view of each volume, upright and with its own grey values."""
        return ViewSpec(upright=True, plain=True)

    @staticmethod
    def heads(scope: Scope, config: AugmentationConfig) -> nn.Module:
        """The head that tells."""
        return RecognitionHead(scope.architecture, config, len(probabilities(config, scope)))

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The cross-entropy of the answers, their accuracy, and that of always saying what is likelier."""
        (view,) = batch.views
        config, made = self.config, []
        changed = torch.empty_like(view)
        for i, image in enumerate(view):
            seed = (batch.seed, i)
            changed[i], of_item = with_changes(image, config.made, self.axes, config.flip_probability, seed)
            made.append(of_item)
        made_BK = torch.tensor(made, device=view.device)
        logits_BK = self.head(self.network, changed)
        right_K = ((logits_BK.detach() > 0) == made_BK).float().mean(dim=0)
        likelier = [max(p, 1 - p) for p in self.changes.values()]
        logs = {"accuracy": right_K.mean(), "chance": right_K.new_tensor(likelier).mean()}
        logs |= {f"accuracy/{name}": right for name, right in zip(self.changes, right_K, strict=True)}
        return PretextResult(loss=recognition_loss(logits_BK, made_BK), logs=logs)

    def resting_loss(self) -> float:
        """What answers that are the same for every view cost at least: the mean entropy of the changes."""
        shares = torch.tensor([[p, 1 - p] for p in self.changes.values()], dtype=torch.float64)
        return float(torch.special.entr(shares).sum(dim=1).mean())
