"""Pictures of what each pretext method is given and what it shows the network, for docs/methods.md."""

import copy
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.store import Store
from ..ssl.method import Registered, Views
from ..ssl.methods.registry import METHODS
from ..ssl.pretrain import PretrainConfig, assemble, scope_of
from ..ssl.smartpatch import BoxConfig, Sizes, SmartPatchConfig
from ..ssl.views import ViewConfig, ViewSampler
from .bench.nuclei import nuclei_store
from .gallery import GREYS

_ITEMS, _MOST = 2, 12
# views of a size in which nuclei can be seen
_BOXES = SmartPatchConfig(global_boxes=BoxConfig(start=Sizes(of="patch", range=(1.5, 2.0))))


def write_method_pictures(folder: Path) -> None:
    """Writes method_NAME.png for each method: a batch of synthetic nuclei."""
    folder.mkdir(parents=True, exist_ok=True)
    with nuclei_store() as store:
        for name, registered in sorted(METHODS.items()):
            batch, shown = seen(registered, name, store)
            (folder / f"method_{name}.png").write_bytes(picture(batch, shown))


def seen(registered: Registered, name: str, store: Store) -> tuple[Views, list[Tensor]]:
    """A batch of a method with its defaults, and every image (C, Z, Y, X) that its network is shown of it."""
    options, training = registered.config(), store.plan.training
    spec = registered.method.views(options)
    views = ViewConfig(boxes=_BOXES)
    views = ViewConfig(boxes=_BOXES, augment=spec.changes(views.augment))
    cases = tuple(sorted(store.cases))
    sampler = ViewSampler(store, cases, training.patch, _ITEMS, spec, views, 0, 100)
    config = PretrainConfig(method=name, steps=100, views=views)
    method = assemble(registered, config, scope_of(sampler, store.plan, config)).train()
    batch, shown, encode = sampler.batch(0), [], method.network.encode

    def noted(images: Tensor) -> list[Tensor]:
        shown.extend(images.detach().clone())
        return encode(images)

    method.network.encode = noted
    # a step must not be seen in the batch it was given
    method(copy.deepcopy(batch), 50)
    return batch, shown


def picture(batch: Views, shown: Sequence[Tensor]) -> bytes:
    """A PNG: the views of each item above, below them what the network is shown; the middle slice of each."""
    rows = [[view[item] for item in range(_ITEMS) for view in batch.views][:_MOST], list(shown)[:_MOST]]
    columns = max(map(len, rows))
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(0.95 * columns + 0.5, 2.3), layout="constrained")
        axes = figure.subplots(2, columns, squeeze=False)
        for row, title, images in zip(axes, ("views", "network"), rows, strict=True):
            row[0].set_ylabel(title)
            for ax in row:
                ax.set(xticks=[], yticks=[], frame_on=False)
            for ax, image in zip(row, images, strict=False):
                ax.imshow(_greys(image), cmap="gray", vmin=0, vmax=GREYS, interpolation="nearest")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=80)
    return file.getvalue()


def _greys(image: Tensor) -> np.ndarray:
    """The middle slice of the first channel, (Y, X), in few greys."""
    plane = image[0, image.shape[1] // 2].float().cpu()
    low, high = torch.quantile(plane.flatten(), torch.tensor([0.01, 0.995]))
    return ((plane - low) / (high - low).clamp_min(1e-6)).clamp(0, 1).mul(GREYS).round().numpy()
