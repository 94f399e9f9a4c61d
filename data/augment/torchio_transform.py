"""A transform of TorchIO in the chain."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..making import OperationError
from ..settings import Probability, settings
from ..volume import Triple
from .draws import Draws

if TYPE_CHECKING:
    from torchio import Subject, transforms

# what TorchIO's transforms raise where they do not like what they get
_REFUSALS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    RuntimeError,
    ArithmeticError,
    OSError,
)
# they would part the labels from the image, or rename it
_WITHHELD = ("include", "exclude", "keys", "keep", "label_keys", "parse_input")
# others mix class numbers
_LABEL_INTERPOLATIONS = ("nearest", "label_gaussian")
# one thread makes batches while another may make views; nothing else draws from the generator then
_GENERATOR = threading.Lock()


@settings
class TorchIO:
    """Any transform of TorchIO 1 by the name of its class; labels follow it.

    `arguments` are those of the class. One that is a mapping of `transform` and `arguments` is a transform
    itself, also within lists and mappings, as Compose and OneOf need them. TorchIO's axes are x, y, z and
    its lengths millimetres: here those of the spacing that is handed over, or else voxels. Where a transform
    wants the name of an image, they are `image` and `labels`; which of them it changes is not for the
    arguments to say (`include` and its like), or labels would no longer lie where the image does.

    A name or an argument that TorchIO does not take is a ValueError.
    """

    transform: str
    op: Literal["torchio"] = "torchio"
    probability: Probability = 0.2
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        built(self.transform, self.arguments)

    @property
    def is_spatial(self) -> bool:
        """Whether it may do anything but change grey values where they are."""
        from torchio import transforms

        in_place = (transforms.IntensityTransform, transforms.RandomAnisotropy)
        return not all(isinstance(leaf, in_place) for leaf in _leaves(built(self.transform, self.arguments)))

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image transformed, without labels that could follow."""
        return self.on_both(image, None, draws)[0]

    def on_both(
        self, image: Tensor, labels: Tensor | None, draws: Draws, spacing: Triple = (1.0, 1.0, 1.0)
    ) -> tuple[Tensor, Tensor | None]:
        """Image and labels transformed as one subject, each of the type and on the device it had.

        Every random number comes from `draws`: what TorchIO takes from torch's global generator is seeded
        for the call, and the generator left as it was. Raises OperationError where the transform fails,
        changes the shape or makes values that are not finite.

        Args:
            image: (C, Z, Y, X), float32.
            labels: (C, Z, Y, X), whole numbers, also negative ones, or None.
            draws: where the numbers come from.
            spacing: of the voxels (z, y, x).
        """
        from torchio import LabelMap, ScalarImage, Subject

        affine = np.diag([*spacing[::-1], 1.0])
        images: dict[str, Any] = {"image": ScalarImage(tensor=_turned(image.cpu()), affine=affine)}
        if labels is not None:
            images["labels"] = LabelMap(tensor=_turned(labels.cpu()).int(), affine=affine)
        try:
            subject = self._applied(Subject(images), draws.integer(0, 2**62))
        except _REFUSALS as error:
            raise self._refusal(f"{type(error).__name__}: {error}", image) from error
        changed = self._result(subject, "image", image)
        if not bool(changed.isfinite().all()):
            raise self._refusal("it made values that are not finite", image)
        return changed, None if labels is None else self._result(subject, "labels", labels)

    def _applied(self, subject: "Subject", seed: int) -> "Subject":
        transform = built(self.transform, self.arguments)
        # noise seeds the generators of all GPUs too
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with _GENERATOR, torch.random.fork_rng(devices):
            torch.default_generator.manual_seed(seed)
            return transform(subject)

    def _result(self, subject: "Subject", name: str, before: Tensor) -> Tensor:
        after = _turned(subject.get_image(name).data)
        if after.shape != before.shape:
            raise self._refusal(f"it made {name} of {tuple(after.shape)}", before)
        return after.to(before)

    def _refusal(self, found: str, before: Tensor) -> OperationError:
        return OperationError(
            f"TorchIO's {self.transform}",
            found=f"{found} (of a patch of {tuple(before.shape)}, C Z Y X)",
            rule="A transform in the chain gives back a patch of the shape that it got, finite throughout",
            remedy="Change its arguments or take it out of augment.chain",
        )


def built(name: str, arguments: Mapping[str, Any]) -> "transforms.Transform":
    """The transform; raises ValueError where TorchIO has none of that name or refuses the arguments."""
    from torchio import transforms

    kind = vars(transforms).get(name)
    if not (isinstance(kind, type) and issubclass(kind, transforms.Transform)):
        raise ValueError(f"TorchIO has no transform {name!r}, it has: {', '.join(_names())}")
    if withheld := [key for key in _WITHHELD if key in arguments]:
        raise ValueError(
            f"{name} changes the image and its labels as it must: leave out {', '.join(withheld)}"
        )
    if arguments.get("label_interpolation", "nearest") not in _LABEL_INTERPOLATIONS:
        raise ValueError(f"label_interpolation is one of: {', '.join(_LABEL_INTERPOLATIONS)}")
    values = {key: _value(value) for key, value in arguments.items()}
    try:
        return kind(**values)
    except _REFUSALS as error:
        raise ValueError(f"TorchIO's {name} does not take {dict(arguments)}: {error}") from error


def _value(value: Any) -> Any:
    """An argument with the transforms that are described in it."""
    if isinstance(value, Mapping) and "transform" in value:
        if unknown := set(value) - {"transform", "arguments"}:
            raise ValueError(f"an inner transform has `transform` and `arguments`, not {sorted(unknown)}")
        return built(value["transform"], value.get("arguments") or {})
    if isinstance(value, Mapping):
        return {_key(key): _value(inner) for key, inner in value.items()}
    # TorchIO's sequences are tuples
    return tuple(_value(inner) for inner in value) if isinstance(value, list | tuple) else value


def _key(key: Any) -> Any:
    """Class numbers as numbers: settings that were written as JSON have texts for keys."""
    return int(key) if isinstance(key, str) and key.removeprefix("-").isdecimal() else key


def _names() -> list[str]:
    from torchio import transforms

    kinds = vars(transforms).items()
    return sorted(
        name for name, kind in kinds if isinstance(kind, type) and issubclass(kind, transforms.Transform)
    )


def _leaves(transform: "transforms.Transform") -> Iterator["transforms.Transform"]:
    from torchio import transforms

    if isinstance(transform, transforms.Compose):
        inner = list(transform.transforms)
    elif isinstance(transform, transforms.OneOf):
        inner = list(transform.transforms_dict)
    else:
        inner = []
        yield transform
    for each in inner:
        yield from _leaves(each)


def _turned(image: Tensor) -> Tensor:
    """(C, X, Y, Z) of (C, Z, Y, X), and the other way round."""
    return image.permute(0, 3, 2, 1).contiguous()
