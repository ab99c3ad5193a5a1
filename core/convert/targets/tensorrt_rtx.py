"""TensorRT for RTX: an engine for cards of several generations, built without any card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.convert.parity import tolerance_of
from core.convert.source import Axis, Source
from core.convert.target import Artifact, Options
from edge.target import Target

# Ampere, Ada and Blackwell cards; the release also knows sm_75 and sm_121.
DEFAULT_DEVICES = ("sm_80", "sm_86", "sm_89", "sm_120")


class TensorrtRtxConverter:
    """Reads `precision` (float32 alone: types are the file's) and `device`: "sm_86,sm_89".

    TF32, which the builder would use for float32 products, is switched off.
    """

    name = "tensorrt_rtx"
    suffix = ".engine"
    ids = ("x86_64-trt-rtx",)

    def convert(
        self, source: Source, onnx: Path, folder: Path, target_id: str, options: Options
    ) -> Artifact:
        """Parse the ONNX file and build the engine.

        Raises:
            ValueError: an operator the parser lacks (all are named), or an unknown device.
            ModuleNotFoundError: tensorrt_rtx is not installed.
        """
        if target_id not in self.ids:
            raise ValueError(f"target={target_id!r} is not one of {', '.join(self.ids)}")
        if options.precision != "float32":
            raise ValueError(
                f"precision={options.precision!r} is not float32; types are the ONNX file's own"
            )
        trt = _import_tensorrt()
        devices = _devices(trt, options.device)
        logger = _new_logger(trt)
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        _parse(trt, network, logger, onnx)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.num_compute_capabilities = len(devices)
        for index, device in enumerate(devices):
            config.set_compute_capability(_capability(trt, device), index)
        if source.axes:
            profile = builder.create_optimization_profile()
            for name, shapes in profile_shapes(source).items():
                profile.set_shape(name, *shapes)
            config.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise ValueError(f"TensorRT builds no engine: {'; '.join(logger.errors[-3:])}")
        path = folder / f"{source.name}{self.suffix}"
        path.write_bytes(bytes(engine))
        target = Target(
            id=target_id,
            arch="x86_64",
            backend="tensorrt_rtx",
            accelerator=f"NVIDIA RTX {', '.join(devices)}",
            precision=options.precision,
            model=path.name,
            state="built",
            tolerance=tolerance_of(options),
            runtime=f"=={trt.__version__}",
            options={"inputs": list(source.example), "outputs": list(source.output_names)},
        )
        notes = ("built without a card; it has never run", *dict.fromkeys(logger.warnings))
        return Artifact(target, folder, (path.name,), is_reproducible=False, notes=notes)

    def open(self, artifact: Artifact) -> None:
        """Nothing: a card is needed to run it."""


Shape = tuple[int, ...]


def profile_shapes(source: Source) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Lowest, middle and highest shape of each input that has an axis."""
    shapes = {}
    for name, dimensions in source.axes.items():
        shape = tuple(source.example[name].shape)
        low, middle, high = (
            tuple(
                _sizes(dimensions[at])[which] if at in dimensions else size
                for at, size in enumerate(shape)
            )
            for which in range(3)
        )
        shapes[name] = (low, middle, high)
    return shapes


def _sizes(axis: Axis) -> Shape:
    sizes = axis.sizes()
    return sizes[0], sizes[len(sizes) // 2], sizes[-1]


def _import_tensorrt() -> Any:
    try:
        import tensorrt_rtx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"tensorrt_rtx is not installed ({error}); pip install .[rtx]"
        ) from None
    return tensorrt_rtx


def _new_logger(trt: Any) -> Any:
    """A logger that keeps warnings and errors instead of printing them."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base class comes with the package
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                self.warnings.append(message)
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()


def _devices(trt: Any, asked: str) -> tuple[str, ...]:
    devices = tuple(name.strip() for name in asked.split(",") if name.strip()) or DEFAULT_DEVICES
    known = sorted(
        (
            f"sm_{name.removeprefix('SM')}"
            for name in dir(trt.ComputeCapability)
            if name[:2] == "SM"
        ),
        key=lambda name: int(name[3:]),
    )
    for device in devices:
        if device not in known:
            raise ValueError(f"device={device!r} is not one of {', '.join(known)}")
    return devices


def _capability(trt: Any, device: str) -> Any:
    return getattr(trt.ComputeCapability, device.replace("_", "").upper())


def _parse(trt: Any, network: Any, logger: Any, onnx: Path) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(onnx)):
        return
    unsupported = trt.ErrorCode.UNSUPPORTED_NODE
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    nodes = [
        f"{error.node_operator()} ({error.node_name() or f'node {error.node()}'})"
        for error in errors
        if error.code() == unsupported and error.node_operator()
    ]
    if nodes:
        raise ValueError(
            f"operators={', '.join(dict.fromkeys(nodes))} are not in TensorRT for RTX "
            f"{trt.__version__}; take another target, or leave them out of the model"
        )
    raise ValueError(f"TensorRT does not read the model: {'; '.join(e.desc() for e in errors)}")


CONVERTER = TensorrtRtxConverter()
