"""The options by which a command is told how files are read; light, as every command line loads it."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer


def _of_images(
    spacing: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxel spacing for files that tell none; needs --unit."),
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of --spacing: nm, um, mm, ...")] = None,
    spacings: Annotated[
        Path | None, typer.Option(help="CSV table case,z,y,x,unit: stands above what files tell.")
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help="Stored axes in their order, of T, C, Z, Y, X: stands above the file.")
    ] = None,
    time: Annotated[int | None, typer.Option(min=0, help="The time point to take, from 0.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the array in HDF5 files.")] = None,
    replace_nonfinite: Annotated[
        float | None, typer.Option(help="What stands for voxels that are NaN or infinite; an error without.")
    ] = None,
) -> None: ...


def _of_labels(
    label_kind: Annotated[
        str | None, typer.Option(help="'classes', 'instances' (numbered objects) or 'overlapping'.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="How many classes are expected, background included.")
    ] = None,
    ignore_value: Annotated[
        int | None, typer.Option(help="The label value of voxels that nobody annotated.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix/--no-fix", help="Mend mistakes that have one sensible correction.")
    ] = True,
    accept_geometry: Annotated[
        bool,
        typer.Option("--accept-geometry", help="Take labels voxel by voxel though their headers disagree."),
    ] = False,
    label_axes: Annotated[str | None, typer.Option(help="As --axes, of the labels.")] = None,
    label_dataset: Annotated[
        str | None, typer.Option(help="As --dataset, of the labels; without --labels in the images' files.")
    ] = None,
) -> None: ...


def takes_reading(*, labels: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of reading; it gets them as one mapping, `reading`."""
    templates = [_of_images, *([_of_labels] if labels else [])]
    added = [p for template in templates for p in inspect.signature(template).parameters.values()]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.name != "reading"]

        @wraps(command)
        def wrapped(**given: Any) -> None:
            reading = {p.name: given.pop(p.name) for p in added}
            command(**given, reading=_typed(reading))

        keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *added)]
        wrapped.__signature__ = signature.replace(parameters=keywords)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in keywords}
        return wrapped

    return decorate


def label_kind_option(text: str | None) -> Any:
    """The kind of labels that an option names; a usage error where there is none such."""
    if text not in (None, "classes", "instances", "overlapping"):
        raise typer.BadParameter(
            f"'{text}' is none of classes, instances, overlapping", param_hint="--label-kind"
        )
    return text


def _typed(reading: dict[str, Any]) -> dict[str, Any]:
    label_kind_option(reading.get("label_kind"))
    return {**reading, "spacing": _spacing(reading["spacing"])}


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"'{text}' is not three numbers such as 0.5,0.1,0.1", param_hint="--spacing"
        ) from None
    return z, y, x
