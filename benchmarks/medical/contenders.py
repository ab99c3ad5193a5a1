"""One contender over one volume, in a process of its own: `... contenders NAME PLAN.json`.

All have the same weights, the same array in memory and the same threads; what is timed is from the
array to the result, with no warm-up, for a scan is looked at once. Ours gives nodules, the peers a
probability for every voxel: that is how they find nodules.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.medical.subject import read_volume
from kits.medical.geometry import Volume
from kits.medical.infer.lungs import find_lungs

MONAI_ROI = (96, 96, 96)
MONAI_OVERLAP = 0.25  # the default
TUNED_BATCH = 4
NNUNET_PATCH = (128, 128, 128)
# At most so large a part is run and scaled from: 8 of the 196 tiles of 512x512x300, and 2 where
# each is computed in eight mirror images.
NNUNET_PART, NNUNET_MIRRORED_PART = (192, 192, 192), (128, 128, 192)


@dataclass(frozen=True)
class Plan:
    """What a contender is told."""

    run: Path
    bundle: Path
    int8_bundle: Path | None
    scan: Path
    threads: int
    settings: Mapping[str, Any]  # of our search

    @classmethod
    def read(cls, path: Path) -> Plan:
        """From JSON."""
        content = json.loads(path.read_text())
        int8 = content["int8_bundle"]
        return cls(
            Path(content["run"]), Path(content["bundle"]), int8 and Path(int8),
            Path(content["scan"]), content["threads"], content["settings"],
        )  # fmt: skip


Run = Callable[[Volume], dict[str, Any]]


def _ours(bundle: str, device: str) -> Callable[[Plan], Run]:
    def open_(plan: Plan) -> Run:
        from kits.medical.infer.find import find_nodules
        from kits.medical.infer.network import open_network

        network = open_network(getattr(plan, bundle), plan.threads, device)
        settings = network.settings(threads=plan.threads, **plan.settings)

        def run(volume: Volume) -> dict[str, Any]:
            found = find_nodules(volume, network, settings)
            steps = {name: round(value, 3) for name, value in found.seconds.items()}
            return {"steps_s": steps, "findings": len(found.findings)}

        return run

    return open_


def _every_voxel(plan: Plan) -> Run:
    """What the peers do, with our engine and tiles: the mask of each voxel around the lungs."""
    from kits.medical.infer.crops import FineGrid
    from kits.medical.infer.network import open_network
    from kits.medical.infer.tiles import plan_tiles

    network = open_network(plan.bundle, plan.threads, "x86_64-openvino-cpu-bf16")
    settings = network.settings(threads=plan.threads)

    def run(volume: Volume) -> dict[str, Any]:
        multiple = settings.multiple
        lungs = find_lungs(volume, threads=plan.threads)
        fine = FineGrid(volume, multiple)
        wanted = lungs.blocks((multiple,) * 3, tuple(size // multiple for size in fine.shape))  # type: ignore[arg-type]
        mask = np.zeros(fine.shape, bool)
        tiles = plan_tiles(wanted, multiple, settings.halo, settings.max_tile_voxels)
        for tile in tiles:
            given = np.empty((1, 1, *(part.stop - part.start for part in tile.window)), np.float32)
            fine.cut(tile.window, given[0, 0])
            inner = tuple(
                slice(core.start - held.start, core.stop - held.start)
                for core, held in zip(tile.core, tile.window, strict=True)
            )
            mask[tile.core] = network({"image": given})["mask"][0, 0][inner] > 0
        return {"voxels": int(mask.sum()), "tiles": len(tiles)}

    return run


def _module(plan: Plan, *, is_tuned: bool) -> Any:
    import torch

    from kits.medical.model import fold_batch_norm
    from kits.medical.trained import load_module

    torch.set_num_threads(plan.threads)
    module = load_module(plan.run)
    if is_tuned:
        module = fold_batch_norm(module).to(torch.bfloat16, memory_format=torch.channels_last_3d)
    else:
        # As a user's own network comes: the layout is what our builder chose for itself.
        module = module.to(memory_format=torch.contiguous_format)
    return module


def _monai_default(plan: Plan) -> Run:
    import torch
    from monai.inferers import sliding_window_inference

    module = _module(plan, is_tuned=False)

    @torch.inference_mode()
    def run(volume: Volume) -> dict[str, Any]:
        image = torch.from_numpy(volume.voxels.astype(np.float32))[None, None]
        logits = sliding_window_inference(
            image, MONAI_ROI, 1, lambda x: module(x)["mask"], overlap=MONAI_OVERLAP
        )
        return {"voxels": int((torch.sigmoid(logits) > 0.5).sum())}

    return run


def _monai_tuned(plan: Plan) -> Run:
    import torch
    from monai.inferers import sliding_window_inference

    module = _module(plan, is_tuned=True)

    def predict(x: Any) -> Any:
        x = x.to(torch.bfloat16, memory_format=torch.channels_last_3d)
        return module(x)["mask"].float()

    @torch.inference_mode()
    def run(volume: Volume) -> dict[str, Any]:
        # The box that our own search finds; the peer gets it for nothing but its time.
        part = volume.voxels[find_lungs(volume, threads=plan.threads).window]
        image = torch.from_numpy(part.astype(np.float32))[None, None]
        logits = sliding_window_inference(
            image, MONAI_ROI, TUNED_BATCH, predict, overlap=MONAI_OVERLAP
        )
        return {"voxels": int((torch.sigmoid(logits) > 0.5).sum())}

    return run


def _nnunet(*, is_mirrored: bool) -> Callable[[Plan], Run]:
    def open_(plan: Plan) -> Run:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

        module = _module(plan, is_tuned=False)

        class Mask(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = module

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                mask: torch.Tensor = self.network(x)["mask"]
                return mask

        predictor = nnUNetPredictor(
            tile_step_size=0.5, use_gaussian=True, use_mirroring=is_mirrored,
            perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False,
        )  # fmt: skip
        label = SimpleNamespace(num_segmentation_heads=1)
        predictor.manual_initialization(
            Mask(), SimpleNamespace(get_label_manager=lambda _: label),
            SimpleNamespace(patch_size=NNUNET_PATCH), None, {}, "", (0, 1, 2),
        )  # fmt: skip

        def tiles(shape: tuple[int, ...]) -> int:
            padded = tuple(max(n, p) for n, p in zip(shape, NNUNET_PATCH, strict=True))
            steps = compute_steps_for_sliding_window(padded, NNUNET_PATCH, 0.5)
            return int(np.prod([len(axis) for axis in steps]))

        most = NNUNET_MIRRORED_PART if is_mirrored else NNUNET_PART

        def run(volume: Volume) -> dict[str, Any]:
            part = volume.voxels[tuple(
                slice((n - min(n, m)) // 2, (n + min(n, m)) // 2)
                for n, m in zip(volume.grid.shape, most, strict=True)
            )]  # fmt: skip
            image = torch.from_numpy(part.astype(np.float32))[None]
            logits = predictor.predict_sliding_window_return_logits(image)
            return {
                "voxels": int((logits > 0).sum()),
                # All tiles cost the same: the whole is as many times dearer as it has more.
                "scale": tiles(volume.grid.shape) / tiles(part.shape),
                "tiles": tiles(volume.grid.shape),
                "tiles_run": tiles(part.shape),
            }

        return run

    return open_


CONTENDERS: dict[str, Callable[[Plan], Run]] = {
    "deepkits int8": _ours("int8_bundle", "x86_64-openvino-cpu"),
    "deepkits bf16": _ours("bundle", "x86_64-openvino-cpu-bf16"),
    "deepkits fp32": _ours("bundle", "x86_64-openvino-cpu"),
    "deepkits, ONNX Runtime fp32": _ours("bundle", "x86_64-ort-cpu"),
    "deepkits, ONNX Runtime int8": _ours("int8_bundle", "x86_64-ort-cpu"),
    "deepkits bf16, every voxel": _every_voxel,
    "MONAI, tuned": _monai_tuned,
    "MONAI, default": _monai_default,
    "nnU-Net, no mirroring": _nnunet(is_mirrored=False),
    "nnU-Net, default": _nnunet(is_mirrored=True),
}


def main() -> None:
    """Run one and print a line of JSON."""
    name, path = sys.argv[1:]
    plan = Plan.read(Path(path))
    volume = read_volume(plan.scan)
    started = time.perf_counter()
    run = CONTENDERS[name](plan)
    open_s = time.perf_counter() - started
    started, cpu = time.perf_counter(), time.process_time()
    found = run(volume)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    scale = found.get("scale", 1.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"wall_s": wall_s * scale, "cpu_s": cpu_s * scale, "open_s": open_s,
             "rss_mib": peak, **found}
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
