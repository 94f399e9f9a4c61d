"""What a user says of files that do not say it themselves."""

from typing import Annotated

from pydantic import Field

from ..settings import settings


@settings
class ReadChoices:
    """How to read files that can be read in several ways; None leaves it to the file.

    `axes` names every stored axis in the order of the array, with the letters T, C, Z, Y, X ("ZCYX"), and
    stands above what the file says. NIfTI, NRRD and MetaImage store X first ("XYZC", "XYZT"), and their
    spatial axes are always X, Y, Z: where these point the header tells. `time` is the time point to take,
    from 0. `dataset` is the name of the array inside a file that may hold several (HDF5). With
    `fourth_is_channels` a fourth axis that neither file nor user names is channels, as in labels whose
    classes overlap.
    """

    axes: Annotated[str, Field(pattern="^[TCZYX]+$")] | None = None
    time: Annotated[int, Field(ge=0)] | None = None
    dataset: str | None = None
    fourth_is_channels: bool = False


AS_STORED = ReadChoices()
