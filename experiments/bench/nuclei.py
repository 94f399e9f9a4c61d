"""The small synthetic store that supply, training and prediction are measured on."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...data.loader import PatchConfig, PatchSampler
from ...data.plan import make_plan
from ...data.prepare import prepare
from ...data.scan import scan
from ...data.store import Store
from ...data.synthetic import NucleiConfig, write_nuclei

SIZE = NucleiConfig(shape=(48, 256, 256), nuclei=(20, 30))


@contextmanager
def nuclei_store(config: NucleiConfig = SIZE) -> Iterator[Store]:
    """A store of four labelled volumes, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_nuclei(Path(folder) / "data", unannotated=0, annotated=4, test=1, seed=1, config=config)
        scanned = scan(data / "train")
        yield prepare(scanned, make_plan(scanned.fingerprint, budget="cpu"), Path(folder) / "store")


def patch_sampler(store: Store) -> PatchSampler:
    """Augmented patches as supervised training draws them."""
    training = store.plan.training
    cases = [case.id for case in store.annotated]
    return PatchSampler(store, cases, training.patch, training.batch, PatchConfig(), seed=0)
