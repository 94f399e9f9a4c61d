"""How nnU-Net and nnssl prepared the volumes of a network, as far as there is the same here."""

from pathlib import Path

from ...data.plan import Preprocessing, Scheme, Window, orders_for
from ...data.volume import Shape
from ..source import Contract, Open
from .errors import told
from .limits import refused
from .plans import Configuration, Plans, each
from .turn import Turn

# of nnU-Net and here
SCHEMES: dict[str, Scheme] = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
}
# it turns volumes to RAS; the others take them as they are stored
REORIENTS = "NibabelIOWithReorient"
# its spacings have no unit; the others read medical formats, in millimetres
WITHOUT_UNIT = "Tiff3DIO"
# of a window here, and of the grey values there
WINDOW = {"low": "percentile_00_5", "high": "percentile_99_5", "mean": "mean", "std": "std"}
# the function that leaves volumes at the voxel size they have
AS_THEY_ARE = "no_resampling_hack"


def contract_of(
    plans: Plans, configuration: Configuration, channels: tuple[str, ...] | int, turn: Turn, where: Path
) -> tuple[Contract, tuple[str, ...]]:
    """How volumes were prepared, and notes of what is not known; `channels` are names, or how many."""
    unknown: list[Open] = []
    notes: list[str] = []
    names = channels if isinstance(channels, tuple) else tuple(f"channel{i}" for i in range(channels))
    if channels != names:
        unknown.append("channels")
    spacing = _spacing(configuration, turn, where)
    if configuration.resampling_fn_data == AS_THEY_ARE:
        spacing = None
    elif spacing is None or plans.image_reader_writer == WITHOUT_UNIT:
        unknown.append("spacing")
        notes.append(f"spacing: {'none' if spacing is None else f'{spacing}, of no known unit'}")
        spacing = None
    oriented = plans.image_reader_writer == REORIENTS
    if not oriented:
        unknown.append("orientation")
    schemes, windows, wrong = _normalisation(plans, configuration, len(names), where)
    if wrong:
        unknown.append("normalisation")
        notes += wrong
    theirs = configuration.patch_size
    patch: Shape | None = turn.triple(theirs) if theirs is not None and len(theirs) == 3 else None
    if patch is None:
        unknown.append("patch")
    preprocessing = Preprocessing(
        unit="mm" if spacing else None,
        spacing=spacing,
        orders=orders_for(spacing),
        orientation="RAS" if oriented else "stored",
        channels=names,
        normalisation=schemes,
        windows=windows,
    )
    return Contract(preprocessing=preprocessing, patch=patch, unknown=tuple(unknown)), tuple(notes)


def _spacing(configuration: Configuration, turn: Turn, where: Path) -> tuple[float, float, float] | None:
    spacing = configuration.spacing
    if spacing is None:
        return None
    if len(spacing) != 3 or not all(0 < length < float("inf") for length in spacing):
        raise refused(where, f"the spacing {spacing}")
    return turn.triple(spacing)


def _normalisation(
    plans: Plans, configuration: Configuration, count: int, where: Path
) -> tuple[tuple[Scheme, ...], tuple[Window | None, ...], list[str]]:
    """Schemes and windows of the channels, and what of them there is not here."""
    theirs = configuration.normalization_schemes
    masked = each(configuration.use_mask_for_norm, len(theirs))
    if len(theirs) != count or len(masked) != count:
        return (
            tuple[Scheme, ...]("none" for _ in range(count)),
            (),
            [f"normalisation: {theirs} for {count} channels"],
        )
    wrong = [
        f"normalisation of channel {c}: {scheme}{' inside the region that is not 0' if mask else ''}, "
        "which there is not here"
        for c, (scheme, mask) in enumerate(zip(theirs, masked, strict=True))
        if scheme not in SCHEMES or (mask and scheme == "ZScoreNormalization")
    ]
    schemes: tuple[Scheme, ...] = tuple(SCHEMES.get(scheme, "none") for scheme in theirs)
    windows = tuple(_window(plans, c, where) if s == "ct" else None for c, s in enumerate(schemes))
    wrong += [
        f"normalisation of channel {c}: CT without the grey values of its data set"
        for c, (scheme, window) in enumerate(zip(schemes, windows, strict=True))
        if scheme == "ct" and window is None
    ]
    return schemes, windows, wrong


def _window(plans: Plans, channel: int, where: Path) -> Window | None:
    per_channel = plans.foreground_intensity_properties_per_channel
    properties = per_channel or plans.foreground_intensity_properties_by_modality or {}
    values = properties.get(str(channel))
    if values is None:
        return None
    return told(Window, {ours: values.get(theirs) for ours, theirs in WINDOW.items()}, where)
