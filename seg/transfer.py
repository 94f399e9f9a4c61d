"""Weights into a network they were not trained in: every tensor accounted for, none left out in silence."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from ..data.errors import UserError
from ..data.hashing import file_hash
from ..data.plan import Plan
from .networks.network import Network
from .networks.registry import Architecture
from .source import Source
from .transfer_proof import TOLERANCE, prove
from .transfer_report import (
    PARTS,
    Choice,
    Proof,
    TransferredTensor,
    TransferReport,
    block_of,
    part_of,
    ranges,
)
from .transfer_rules import NOT_CHOSEN, Fate, Rules, rules_for

# less than this share loaded or adapted, of what has a counterpart, is a mistake and not a choice
EXPECTED_SHARE = 0.99


class TransferError(UserError):
    """A checkpoint that does not fit the network or its data."""


def transfer(
    network: Network,
    architecture: Architecture,
    source: Source,
    plan: Plan,
    *,
    load: Choice = "both",
    expected_share: float = EXPECTED_SHARE,
) -> TransferReport:
    """Loads what fits of a source into `network` and tells what became of every tensor.

    The output is loaded with "both", or when it is named, where source and plan mean the same classes.

    Args:
        network, architecture: a network with fresh weights, and what it was built from.
        source: the weights and what is known of them.
        plan: how the volumes here are prepared, and their labels.
        load: parts ("encoder", "decoder", "both") or a tuple of parts and blocks ("decoder.0").
        expected_share: of the parameters of each chosen part that have a counterpart in the source, the share
            that must be loaded or adapted.

    Raises TransferError when less arrives, for weights that are no numbers, for blocks that do not exist, and
    when the network does not answer to the source's probe as the source did. The network keeps its fresh
    weights then, but in the last case.
    """
    state = network.state_dict()
    _check_finite(source)
    rules = rules_for(network, architecture, source, plan, _chosen(load, state, source))
    fates = {name: rules.fate(name, fresh) for name, fresh in state.items()}
    report = _report(source, load, rules, fates)
    _check_arrived(load, fates, report, rules, expected_share)
    network.load_state_dict({name: fate.made.tensor for name, fate in fates.items()}, strict=True)
    proof = prove(network, architecture, source, report.tensors)
    _check_proof(proof, source)
    return replace(report, proof=proof)


def _parts(load: Choice) -> tuple[str, ...]:
    """Parts and blocks that must arrive."""
    if load == "both":
        return ("encoder", "decoder")
    return (load,) if isinstance(load, str) else load


def _chosen(load: Choice, state: Mapping[str, Tensor], source: Source) -> frozenset[str]:
    """Names of parts and blocks to load; raises TransferError for others than the network has."""
    blocks = dict.fromkeys(block_of(name) for name in state)
    known = {*blocks, *map(part_of, state)}
    # a network of one level has no decoder, and both are what it has
    unknown = [name for name in _parts(load) if name not in known and load != "both"]
    if unknown or not load:
        raise TransferError(
            source.path,
            found=f"load={load!r}: "
            + (f"there is no {', '.join(unknown)}" if unknown else "nothing is chosen"),
            rule=f"The network has encoder, decoder and the blocks {ranges(blocks)}",
            remedy="Choose of them, or both (--set load=both)",
        )
    return frozenset({*_parts(load), "output"} if load == "both" else _parts(load))


def _check_finite(source: Source) -> None:
    for name, tensor in source.tensors.items():
        wrong = int((~tensor.float().isfinite()).sum())
        if wrong:
            raise TransferError(
                source.path,
                found=f"{wrong} of {tensor.numel()} values of {name} are no finite numbers in float32",
                rule="Weights are finite numbers",
                remedy="Its training diverged or the file is damaged: take another checkpoint",
            )


def _report(source: Source, load: Choice, rules: Rules, fates: Mapping[str, Fate]) -> TransferReport:
    told = [fate.told for fate in fates.values()]
    places = {rules.place(name) for name in fates}
    return TransferReport(
        source=source.told,
        source_hash=file_hash(source.path),
        kind=source.kind,
        choice=load,
        tensors=tuple(told),
        unused=tuple(sorted(source.tensors.keys() - places)),
        notes=(*source.notes, rules.alignment.note, *_classes(told), *_poolings(rules), *_channels(rules)),
        warnings=(*_other_features(fates), *_little(told)),
    )


def _channels(rules: Rules) -> list[str]:
    """A note on channels whose weights stay as they are; of others the adapted tensor tells."""
    return [rules.mix.told] if rules.mix.told and not rules.mix.changes else []


def _classes(tensors: Sequence[TransferredTensor]) -> list[str]:
    """A note on an output that is taken over: label values are compared, which say not what they mean."""
    taken = any(t.part == "output" and t.arrived for t in tensors)
    told = "the output is taken over, as the label values are the same; where they mean something else, "
    return [f"{told}begin it anew with --set load=[encoder,decoder]"] if taken else []


def _poolings(rules: Rules) -> list[str]:
    """A note on levels whose convolution has another stride there: it is taken all the same."""
    shift = rules.alignment.shift
    here, there = rules.architecture.topology.strides, rules.source.architecture.topology.strides
    differing = [
        f"level {level} by {ours} here and {there[level + shift - 1]} there"
        for level, ours in enumerate(here, start=1)
        if 1 <= level + shift <= len(there) and ours != there[level + shift - 1]
    ]
    return [f"pooling differs: {', '.join(differing)}"] if differing else []


def _other_features(fates: Mapping[str, Fate]) -> list[str]:
    warnings = []
    for change, told in (
        ("fewer", "the first of theirs are taken, the others are lost"),
        ("more", "theirs come first, the others begin at random"),
    ):
        blocks = dict.fromkeys(block_of(name) for name, fate in fates.items() if change in fate.made.features)
        if blocks:
            warnings.append(f"{change} features here than in the checkpoint in {ranges(blocks)}: {told}")
    return warnings


def _little(tensors: Sequence[TransferredTensor]) -> list[str]:
    """A warning for each part of which less than half arrives of all that was chosen."""
    warnings = []
    for part in PARTS:
        chosen = [t for t in tensors if t.part == part and t.detail != NOT_CHOSEN]
        arrived, total = sum(t.arrived for t in chosen), sum(t.parameters for t in chosen)
        if part != "output" and arrived < total / 2:
            warnings.append(f"only {arrived / total:.1%} of the {part}'s parameters are the checkpoint's")
    return warnings


def _check_arrived(
    load: Choice, fates: Mapping[str, Fate], report: TransferReport, rules: Rules, expected_share: float
) -> None:
    """Raises TransferError for a chosen part of which too little of what has a counterpart was taken.

    Nothing is expected of a part that no loss has reached, unless it was chosen by name.
    """
    parts = list(dict.fromkeys(map(part_of, _parts(load))))
    if load == "both":
        reached = {part_of(block) for block in rules.source.trained}
        parts = [part for part in parts if part in reached] or parts
    for part in parts:
        of_part = [fate for name, fate in fates.items() if part_of(name) == part]
        expected = [fate.told for fate in of_part if fate.expected]
        taken = sum(told.parameters for told in expected if told.state != "re-initialised")
        if of_part and taken < max(1, expected_share * sum(told.parameters for told in expected)):
            raise _too_little(part, report, rules, expected_share)


def _too_little(part: str, report: TransferReport, rules: Rules, expected_share: float) -> TransferError:
    source = rules.source
    found = [
        f"too little of it fits the {part} of this network",
        *report.lines(),
        f"  here:  {_told(rules.architecture)}",
        f"  there: {_told(source.architecture)}\n",
    ]
    return TransferError(
        source.path,
        found="\n".join(found),
        rule=f"Of each chosen part's parameters that have a counterpart, at least {expected_share:.0%} are "
        "loaded or adapted",
        remedy=f"Train the network of the weights (--set network={source.architecture.name})"
        if source.architecture.name != rules.architecture.name
        else "Load other parts or blocks (--set load=encoder), allow it (--set expected_share=0.5), or "
        "prepare the volumes by the checkpoint's plan (`fewvox prepare --from-checkpoint`)",
    )


def _told(architecture: Architecture) -> str:
    levels = ", ".join(f"{key} {value}" for key, value in vars(architecture.topology).items())
    return f"{architecture.name} of {architecture.in_channels} image channels, {levels}"


def _check_proof(proof: Proof, source: Source) -> None:
    # written so that NaN is an error too
    wrong = {block: d for block, d in proof.deviations.items() if not d <= TOLERANCE}
    if wrong:
        block, deviation = next(iter(wrong.items()))
        raise TransferError(
            source.path,
            found=f"{block} gives another answer than the checkpoint stored, {deviation:.1e} standard "
            "deviations off",
            rule=f"A block whose weights were all loaded answers as it did, within {TOLERANCE:g}",
            remedy="The file is damaged or its tensors were exchanged: take another checkpoint",
        )
