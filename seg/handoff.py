"""The whole hand-off: are the volumes prepared alike, what of the weights arrives, are the images alike."""

from dataclasses import replace

from torch import Tensor

from ..data.plan import Plan
from . import contract
from .guard import guard
from .networks.network import Network
from .networks.registry import Architecture
from .source import Source
from .transfer import transfer
from .transfer_report import Choice, TransferReport

_SEEN_UNKNOWN = (
    "the weights do not tell all that they were trained on; it may have been volumes that you test on"
)


def hand_over(
    network: Network,
    architecture: Architecture,
    source: Source,
    plan: Plan,
    images: Tensor,
    *,
    load: Choice,
    expected_share: float,
    accept_mismatch: bool,
) -> TransferReport:
    """Loads what fits of a source into `network`, and tells all that is to be known before a training.

    Args:
        network, architecture: a network with fresh weights, and what it was built from.
        source: the weights and what is known of them.
        plan: how the volumes here are prepared, and their labels.
        images: unaugmented patches (B, C, Z, Y, X) of what is to be trained on (`patches_of`).
        load, expected_share: as in `transfer`.
        accept_mismatch: go on where volumes were prepared otherwise.

    Raises TransferError where volumes were prepared otherwise and that is not accepted, and as `transfer`.
    """
    found = contract.check(source.contract, plan, source.path, accept=accept_mismatch)
    report = transfer(network, architecture, source, plan, load=load, expected_share=expected_share)
    patch = contract.patch_warning(source.contract, plan)
    return replace(
        report,
        mismatches=found,
        accepted=bool(found),
        warnings=(
            *report.warnings,
            *([] if source.seen_all else [_SEEN_UNKNOWN]),
            *([] if patch is None else [patch]),
        ),
        guard=guard(
            source.inputs,
            network,
            images,
            _counterparts(source, plan),
            answers=_first(report),
        ),
    )


def _counterparts(source: Source, plan: Plan) -> tuple[tuple[int, ...], ...] | None:
    theirs = source.contract.preprocessing
    if theirs is None or "channels" in source.contract.unknown:
        return None
    return contract.channels_of(theirs, plan.preprocessing)


def _first(report: TransferReport) -> bool:
    """Whether the first convolution has weights of the source."""
    weights = [t for t in report.tensors if t.name.startswith("encoder.0") and t.name.endswith("weight")]
    return bool(weights) and weights[0].state != "re-initialised"
