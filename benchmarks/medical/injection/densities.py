"""Hounsfield units that are not known."""

from __future__ import annotations

import numpy as np

from benchmarks.medical.healthy import Series, get_stored, set_stored
from benchmarks.medical.injection.changes import metal, pad
from benchmarks.medical.injection.fault import each, fault, inner, setting


@fault("refuse", "rescale_jump")
def one_intercept_lost(series: Series) -> None:
    """One slice lost its intercept."""
    one = series.slices[inner(series)][1]
    one.RescaleIntercept = int(one.RescaleIntercept) + 1024


@fault("refuse", "rescale_jump")
def one_slope_wrong(series: Series) -> None:
    """One slice has slope 1.2."""
    one = series.slices[inner(series)][1]
    one.RescaleSlope = 1.2
    one.RescaleIntercept = -1024 if not one.PixelRepresentation else 40


@fault("refuse", "slice_jump", "rescale_jump", "hu_range", "unused_bits")
def one_slice_brighter(series: Series) -> None:
    """The pixels of one slice are 300 HU too high, the header is as ever."""
    one = series.slices[inner(series)][1]
    set_stored(one, get_stored(one) + 300)


@fault("refuse", "missing_tag")
def rescale_missing(series: Series) -> None:
    """There is no rescaling."""
    each(series, lambda one: [delattr(one, key) for key in ("RescaleSlope", "RescaleIntercept")])


@fault("refuse", "missing_tag")
def one_rescale_missing(series: Series) -> None:
    """One slice has no intercept."""
    del series.slices[inner(series)][1].RescaleIntercept


@fault("refuse", "rescale")
def rescale_not_to_hu(series: Series) -> None:
    """RescaleType says that values are optical density."""
    each(series, setting("RescaleType", "OD"))


@fault("refuse", "rescale")
def slope_zero(series: Series) -> None:
    """The slope is 0."""
    each(series, setting("RescaleSlope", 0))


@fault("refuse", "implausible_hu")
def intercept_lost(series: Series) -> None:
    """Every slice lost its intercept: 1024 HU too high."""
    for _, one in series.slices:
        one.RescaleIntercept = int(one.RescaleIntercept) + 1024


@fault("refuse", "implausible_hu")
def rescaled_twice(series: Series) -> None:
    """A tool subtracted 1024 from the pixels, and the header does it again."""
    for _, one in series.slices:
        one.RescaleIntercept = int(one.RescaleIntercept) - 1024


@fault("refuse", "implausible_hu")
def slope_doubled(series: Series) -> None:
    """The slope says 2 for values that need 1."""
    for _, one in series.slices:
        values = get_stored(one) + int(one.RescaleIntercept) + 1024
        one.RescaleSlope, one.RescaleIntercept = 2, -1024
        one.BitsStored, one.HighBit = 16, 15
        set_stored(one, values)


@fault("refuse", "implausible_hu", "no_lungs")
def windowed_to_grey_levels(series: Series) -> None:
    """Pixels were windowed to 0 .. 255 for display, headers kept."""
    for _, one in series.slices:
        hu = get_stored(one) + int(one.RescaleIntercept)
        set_stored(one, np.clip((hu + 1000) / 1400 * 255, 0, 255).astype(np.int32))


@fault("refuse", "wrapped_values")
def metal_wraps(series: Series) -> None:
    """Metal above 3071 HU wraps around at 12 bits."""
    metal(series, signed=False)


@fault("refuse", "wrapped_values")
def bone_wraps_signed(series: Series) -> None:
    """12-bit signed values: dense bone wraps to below air."""
    metal(series, signed=True)


@fault("refuse", "unused_bits")
def overlay_in_high_bits(series: Series) -> None:
    """An overlay lies in the upper four bits."""
    for _, one in series.slices:
        one.BitsStored, one.HighBit, one.PixelRepresentation = 12, 11, 0
        stored = get_stored(one) + int(one.RescaleIntercept) + 1024
        one.RescaleIntercept = -1024
        stored[4:8, 4:30] |= 0x1000
        set_stored(one, stored)


@fault("refuse", "hu_range", "unused_bits")
def sign_lost(series: Series) -> None:
    """Signed values are declared unsigned."""
    for _, one in series.slices:
        set_stored(one, get_stored(one) + int(one.RescaleIntercept))
        one.RescaleIntercept, one.PixelRepresentation = 0, 0
        one.BitsStored, one.HighBit = 16, 15


@fault("refuse", "unused_bits")
def bits_stored_too_few(series: Series) -> None:
    """BitsStored says 10 for values that need 12."""
    each(series, setting("BitsStored", 10))
    each(series, setting("HighBit", 9))


@fault("refuse", "unused_bits", "hu_range", "implausible_hu", "wrapped_values")
def bytes_swapped(series: Series) -> None:
    """Pixel bytes are in the other order than the header says."""
    for _, one in series.slices:
        one["PixelData"].value = np.frombuffer(one.PixelData, "<u2").byteswap().tobytes()


@fault("refuse", "padding")
def padding_is_water(series: Series) -> None:
    """The padding value is that of water."""
    pad(series, None, None)


@fault("refuse", "pixel_format")
def inverted(series: Series) -> None:
    """MONOCHROME1: white is low."""
    each(series, setting("PhotometricInterpretation", "MONOCHROME1"))


@fault("refuse", "pixel_format")
def eight_bits(series: Series) -> None:
    """Pixels were reduced to 8 bits."""
    for _, one in series.slices:
        hu = get_stored(one) + int(one.RescaleIntercept)
        grey = np.clip((hu + 1024) // 16, 0, 255).astype(np.uint8)
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit, one.PixelRepresentation = 7, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one["PixelData"].value = grey.tobytes() + bytes(grey.size % 2)


@fault("refuse", "lossy")
def lossy(series: Series) -> None:
    """The archive compressed with loss, and says so."""
    each(series, setting("LossyImageCompression", "01"))
