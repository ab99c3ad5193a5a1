"""SAHI around the same detector: `python -m benchmarks.defect.peer_sahi <json>`; one line of JSON.

One thread. Slices as large as the line's tiles, with SAHI's own overlap of a fifth; no pass over
the whole frame, which would only cost more.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction
from sahi.slicing import get_slice_bboxes

from benchmarks.serve.study import spread
from core.schedule.model_file import open_model
from edge.boxes import nms
from kits.defect.line.detect import found_in
from kits.defect.line.detector_file import DetectorFile

OVERLAP = 0.2


class Detector(DetectionModel):
    """Whatever gives boxes and scores."""

    def set_model(self, model: Any, **_: Any) -> None:
        self.model = model

    def perform_inference(self, image: np.ndarray) -> None:
        self._original_predictions = self.model(image)

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list=None, full_shape_list=None
    ) -> None:
        shift = (shift_amount_list or [[0, 0]])[0]
        shape = full_shape_list[0] if full_shape_list else None
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=list(one.box_px), category_id=one.kind, category_name=str(one.kind),
                    score=one.score, shift_amount=shift, full_shape=shape,
                )
                for one in self._original_predictions
            ]
        ]  # fmt: skip


def engine(settings: dict[str, Any]) -> Any:
    """Grey image of (h, w, 3) to what is found in it."""
    file = DetectorFile.open(Path(settings["detector"]))
    if settings["engine"] == "torch":
        return _torch(Path(settings["run"]), file)
    pipeline = open_model(file.path, "", threads=1)
    (given,) = pipeline.inputs

    def predict(image: np.ndarray) -> Any:
        scaled = image[None, None, :, :, 0].astype(np.float32) / 255
        tile = (0, 0, image.shape[1], image.shape[0])
        return found_in(pipeline.predict({given.name: scaled}), file, [tile])

    return predict


def _torch(run: Path, file: DetectorFile) -> Any:
    """The run's own weights in float32: what a person has before anything is converted."""
    from kits.defect.graph import fused
    from kits.defect.network import ArrayNetwork
    from kits.defect.trained import load_module

    network = ArrayNetwork(fused(load_module(run)))

    def predict(image: np.ndarray) -> Any:
        scaled = image[None, None, :, :, 0].astype(np.float32) / 255
        outputs = network({"image": scaled})
        kept = nms(outputs["boxes"], outputs["scores"], iou=0.6, score=0.05)
        tile = (0, 0, image.shape[1], image.shape[0])
        found = dict(zip(("boxes", "scores", "classes"), kept, strict=True))
        return found_in(found, file, [tile])

    return predict


def main() -> None:
    """Time some frames."""
    torch.set_num_threads(1)
    settings = json.loads(sys.argv[1])
    model = Detector(model=engine(settings), confidence_threshold=0.0, device="cpu")
    frames = np.load(settings["frames"], mmap_mode="r")
    seconds, cpu, objects, slices = [], [], 0, 0
    for at in range(settings["number"]):
        image = np.repeat(np.array(frames[at])[:, :, None], 3, axis=2)
        start, start_cpu = time.perf_counter(), time.process_time()
        result = get_sliced_prediction(
            image,
            model,
            slice_height=settings["tile_px"],
            slice_width=settings["tile_px"],
            overlap_height_ratio=OVERLAP,
            overlap_width_ratio=OVERLAP,
            perform_standard_pred=False,
            verbose=0,
        )
        cpu.append(time.process_time() - start_cpu)
        seconds.append(time.perf_counter() - start)
        objects += len(result.object_prediction_list)
        slices = _num_slices(image, settings["tile_px"])
    print(
        json.dumps(
            {"s": spread(seconds), "cpu_s": spread(cpu), "objects": objects, "slices": slices}
        )
    )


def _num_slices(image: np.ndarray, tile_px: int) -> int:
    height, width = image.shape[:2]
    ratios = {"overlap_height_ratio": OVERLAP, "overlap_width_ratio": OVERLAP}
    return len(get_slice_bboxes(height, width, tile_px, tile_px, **ratios))


if __name__ == "__main__":
    main()
