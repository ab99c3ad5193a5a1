"""Task06_Lung of the Medical Segmentation Decathlon: `imagesTr` and `labelsTr`, one reader."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from core.kit import Split
from kits.medical.data.case import Case
from kits.medical.data.config import MsdData
from kits.medical.data.nifti import fingerprint_files, parts_of, read_mask, read_volume
from kits.medical.data.split import names_of

SUFFIX = ".nii.gz"


class MsdCases:
    """Fills `Cases` from the unpacked archive; each volume is another patient's."""

    name = "msd"
    max_readers = 1

    def __init__(self, cfg: MsdData) -> None:
        self.cfg, self.path = cfg, Path(cfg.path).expanduser()
        # The archive holds macOS' "._" files beside the real ones.
        found = sorted(self.path.glob(f"imagesTr/[!.]*{SUFFIX}"))
        if not found:
            raise ValueError(
                f"data.path={cfg.path!r} holds no imagesTr/*{SUFFIX}; set data.path to Task06_Lung"
            )
        self.images = {file.name.removesuffix(SUFFIX): file for file in found}
        for file in found:
            if not self._label(file).is_file():
                raise ValueError(f"{file} has no labelsTr/{file.name}; unpack the archive again")

    @cached_property
    def fingerprint(self) -> str:
        """Of the content of all files; reads them once."""
        files = list(self.images.values())
        return fingerprint_files([*files, *(self._label(file) for file in files)])

    def names(self, split: Split) -> Sequence[str]:
        """Cases of a split, sorted."""
        return names_of(split, {name: name for name in self.images}, self.cfg)

    def load(self, name: str) -> Case:
        """Read one volume with its tumours."""
        file = self.images[name]
        volume = read_volume(file)
        mask = read_mask(self._label(file), volume.grid)
        return Case(name, name, volume, parts_of(mask, volume.grid, name), extent="scan")

    def _label(self, file: Path) -> Path:
        return self.path / "labelsTr" / file.name
