"""Settings of the defect kit's image sets; plain dataclasses without numpy and torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from kits.defect.optics_config import OpticsConfig, check_ranges

SOURCES = ("rendered", "coco", "voc", "yolo", "labelme", "deeppcb", "neu")
SURFACES = ("brushed", "painted", "textured")
DEFECTS = ("scratch", "dent", "pit", "stain", "inclusion")


@dataclass
class DataConfig:
    """What every image set understands."""

    # The option's own name; decides which reader runs.
    name: str = ""

    def __post_init__(self) -> None:
        """Check the values that do not depend on the source."""
        if self.name != type(self).name:
            choices = " or ".join(f"data={source}" for source in SOURCES)
            raise ValueError(f"data.name={self.name!r} cannot be changed; choose {choices}")


@dataclass
class RenderedData(DataConfig):
    """Metal parts under a camera, made when they are asked for; nothing is read from disk."""

    name: str = "rendered"
    # Another seed is another set of parts.
    seed: int = 0
    # Images of each split.
    num_train: int = 2000
    num_validation: int = 150
    num_test: int = 300
    # Size of an image; smaller than the sensor: cut from a random place of its frame.
    width_px: int = 640
    height_px: int = 640
    optics: OpticsConfig = field(default_factory=OpticsConfig)
    # Surfaces in turn.
    surfaces: tuple[str, ...] = SURFACES
    # null: each image shows a product of its own; a number: all of them show this one (layout,
    # surface, light), part after part, each with its own grain.
    product: int | None = None
    # Edges, bores, grooves and marks, as far as the field of view has them.
    layout: bool = True
    # Beside each image the same part before it was damaged, as a template.
    template: bool = False
    # Template against image: shift up to so many pixels, light different by up to this share.
    template_shift_px: float = 0.7
    template_light: float = 0.02
    # Kinds of defects; scratches, the hardest, are drawn this often, the others alike.
    defects: tuple[str, ...] = DEFECTS
    scratch_share: float = 0.4
    # Share of images without any defect, and the mean number of defects in the others, as far as
    # they find room on the part: more than parts have, since images take time to learn from.
    clean: float = 0.25
    mean_defects: float = 6.0
    # Of scratches: widths and lengths on the part, and how far brightness changes, as a share.
    scratch_width_mm: tuple[float, float] = (0.15, 0.4)
    scratch_length_mm: tuple[float, float] = (2.0, 20.0)
    scratch_contrast: tuple[float, float] = (0.15, 0.6)

    def __post_init__(self) -> None:
        """Check names and ranges."""
        super().__post_init__()
        for key, given, legal in (
            ("surfaces", self.surfaces, SURFACES),
            ("defects", self.defects, DEFECTS),
        ):
            if not given or set(given) - set(legal) or len(set(given)) < len(given):
                raise ValueError(
                    f"data.{key}={list(given)} is not a choice of {', '.join(legal)}, each once; "
                    f"set data.{key}"
                )
        check_ranges(
            "data.",
            self,
            {
                "seed": (0, 2**31),
                "product": (0, 2**31),
                "num_train": (1, 10**9),
                "num_validation": (1, 10**9),
                "num_test": (1, 10**9),
                "width_px": (32, self.optics.sensor_width_px),
                "height_px": (32, self.optics.sensor_height_px),
                "template_shift_px": (0, 8),
                "template_light": (0, 0.5),
                "clean": (0, 1),
                "scratch_share": (0, 1),
                "mean_defects": (1, 50),
            },
        )
        for name, low, high in (
            ("scratch_width_mm", 1e-3, 10.0),
            ("scratch_length_mm", 1e-2, 10_000.0),
            ("scratch_contrast", 1e-3, 1.0),
        ):
            pair = getattr(self, name)
            if not low <= pair[0] <= pair[1] <= high:
                raise ValueError(
                    f"data.{name}={list(pair)} is not a range from {low:g} to {high:g}; "
                    f"set data.{name}=[low,high]"
                )


@dataclass
class RenderConfig:
    """`python -m kits.defect.render`."""

    # A new folder; it gets images/, templates/ and labels.json.
    output: str = "???"
    # Which images: train, validation, test or all.
    split: str = "train"
    # Another source is written in the same form.
    data: DataConfig = field(default_factory=RenderedData)

    def __post_init__(self) -> None:
        """Check names."""
        if self.split not in ("train", "validation", "test", "all"):
            raise ValueError(
                f"split={self.split!r} is not one of train, validation, test, all; set split"
            )


@dataclass
class FolderData(DataConfig):
    """Images with boxes on the user's disk."""

    # The folder, or for deeppcb and neu also the zip file.
    path: str = "???"
    # Images to go on without: what a refusal tells to put here.
    leave_out: tuple[str, ...] = ()
    # Size of a pixel on the part, for lengths in mm; null: not known.
    mm_per_px: float | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_ranges("data.", self, {"mm_per_px": (1e-6, 1000)})


@dataclass
class OwnData(FolderData):
    """A user's own images in a usual form of labels."""

    # Classes in order; null: all that the labels name (coco and yolo say the order themselves).
    class_names: tuple[str, ...] | None = None
    # Folder of defect-free images with the same names, relative to path; null: there are none.
    templates: str | None = None
    # As many first characters of a file's name tell the board, strip or part that splits never
    # divide; 0: every image is one of its own.
    group_characters: int = 0
    # Where the labels name no splits: groups whose sha1 mod 10 is one of these are test; then
    # validation.
    test_folds: tuple[int, ...] = (0, 1)
    validation_folds: tuple[int, ...] = (2,)
    # Read all pixels before any work starts, so that a damaged file is known by then.
    check_pixels: bool = True

    def __post_init__(self) -> None:
        """Check ranges and folds."""
        super().__post_init__()
        check_ranges("data.", self, {"group_characters": (0, 255)})
        test, validation = set(self.test_folds), set(self.validation_folds)
        if not test | validation <= set(range(10)) or test & validation:
            raise ValueError(
                f"data.test_folds={sorted(test)}, data.validation_folds={sorted(validation)} are "
                "not different numbers from 0 to 9; set them"
            )


@dataclass
class CocoData(OwnData):
    """COCO: images and JSON files with `images`, `annotations`, `categories`."""

    name: str = "coco"
    # The JSON file, relative to path; null: every one in path and path/annotations. A name that
    # ends in train, val or test says the split of its images.
    annotations: str | None = None


@dataclass
class VocData(OwnData):
    """PASCAL VOC: an XML file for each image; ImageSets/Main names splits where it is there."""

    name: str = "voc"
    # Coordinate of the first pixel: 1 as VOC has it (last pixels included), or 0 (excluded).
    first_pixel: int = 1

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_ranges("data.", self, {"first_pixel": (0, 1)})


@dataclass
class YoloData(OwnData):
    """YOLO: a text file for each image, labels/ beside images/; data.yaml names the classes."""

    name: str = "yolo"


@dataclass
class LabelmeData(OwnData):
    """LabelMe: a JSON file for each image; rectangles, polygons, circles, and lines."""

    name: str = "labelme"


@dataclass
class DeepPcbData(FolderData):
    """DeepPCB: printed-circuit boards, each with its template; splits are by board."""

    name: str = "deeppcb"
    mm_per_px: float | None = 1 / 48
    # Boards, the first five digits of a name; every other board is test.
    train_boards: tuple[str, ...] = ("00041", "50600", "77000", "92000")
    validation_boards: tuple[str, ...] = ("13000",)


@dataclass
class NeuData(FolderData):
    """NEU-DET: hot-rolled steel; splits are by blocks of image numbers."""

    name: str = "neu"


@dataclass
class TilingConfig:
    """How images become tiles at native resolution; an image of a tile's size stays as it is."""

    # Side of a tile; null: whole images.
    size_px: int | None = 640
    # Neighbouring tiles share so many pixels at least.
    overlap_px: int = 64
    # A box that a border cuts is kept where this share of its area is inside; a line, where so many
    # pixels of its length are. Elsewhere it is painted over, as nothing can be learnt from it.
    least_inside: float = 0.5
    least_length_px: float = 24.0
    # Of the tiles drawn for an epoch, the share without a defect; null: as many as there are.
    clean: float | None = 0.25
    # 0: tiles are drawn alike; 1: every class is drawn equally often.
    balance: float = 0.5

    def __post_init__(self) -> None:
        """Check ranges and pairs."""
        check_ranges(
            "tiling.",
            self,
            {
                "size_px": (32, 8192),
                "overlap_px": (0, 4096),
                "least_inside": (0.01, 1),
                "least_length_px": (1, 8192),
                "clean": (0, 1),
                "balance": (0, 1),
            },
        )
        if self.size_px is not None and self.overlap_px > self.size_px // 2:
            raise ValueError(
                f"tiling.overlap_px={self.overlap_px} is above half of tiling.size_px="
                f"{self.size_px}; lower it"
            )
