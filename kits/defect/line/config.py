"""What `python -m kits.defect.inspect` may be told. Dataclasses only: no numpy."""

from __future__ import annotations

from dataclasses import dataclass

SIMULATOR = "simulator"


@dataclass
class InspectConfig:
    """`python -m kits.defect.inspect`: exit status 0 if every part was inspected, OK or NG; 2 after
    a mistake; 3 if a part is UNINSPECTED.
    """

    # Where frames come from: a folder of images, or of one folder for each camera; a video;
    # simulator: the recipe's own part, with defects drawn on some.
    source: str = "???"
    recipe: str = "???"
    # A run's folder with its bundle, or a bundle.
    run: str = "???"
    # Where ledger, verdicts, pictures of defects and the report go; numbers go on from there.
    output: str = "inspection"
    # Triggers per second and camera, whether the line keeps up or not; null: of files as fast as
    # it takes them, of the simulator 5.
    fps: float | None = None
    # Of the simulator.
    cameras: int = 8
    # Of each camera; null: all of a file, 100 of the simulator.
    parts: int | None = None
    # From trigger to verdict; null: the recipe's, or 30 s where files are read as fast as may be.
    deadline_ms: float | None = None
    # Share of blocks that are looked at although nothing is flagged; null: the recipe's.
    audit_share: float | None = None
    # Processes of one thread: those of the detector, and those that look at every pixel.
    workers: int = 2
    triage_workers: int = 1
    # Frames of a camera that are on their way at once.
    slots: int = 4
    # A bundle's target, or the runtime for an ONNX file: onnxruntime, openvino.
    target: str = "auto"
    # A network over cells that the triage flagged, and its least score; null: none.
    micro_net: str | None = None
    micro_net_score: float = 0.5
    # A changed bundle is loaded beside the one in service and takes its place.
    watch: bool = True
    # normal: the ledger survives any process; full: a power cut too, for some ms a part.
    ledger_sync: str = "normal"
    # Pictures of defects, at most.
    max_pictures: int = 2000

    def __post_init__(self) -> None:
        """Check names and ranges."""
        for name in ("cameras", "workers", "triage_workers", "slots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1; set {name}")
        for name in ("fps", "parts", "deadline_ms"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} is not positive; set {name}, or leave it out")
        if self.ledger_sync not in ("normal", "full"):
            raise ValueError(f"ledger_sync={self.ledger_sync!r} is not one of normal, full; set it")
        if self.audit_share is not None and not 0 <= self.audit_share <= 1:
            raise ValueError(f"audit_share={self.audit_share} is not in 0..1; set audit_share")
