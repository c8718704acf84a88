"""An ONNX model made ready to run: bound, weighted and at the wanted precision."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from costmodel.errors import ModelLoadError
from profiler.request import Request
from profiler.weights import bind_shapes, fill_weights


def prepare(request: Request) -> onnx.ModelProto:
    """The request's model with static input shapes and all weights, quantised or halved where that is asked for.

    bf16 stays float32 here: backends that compute in bf16 convert by themselves.
    Raises ModelLoadError, DynamicShapeError.
    """
    model, folder = _read(request)
    bind_shapes(model, request.batch, request.shapes)
    if request.precision == "int8":
        from profiler.quantize import quantize

        return quantize(model, folder, request.seed)
    fill_weights(model, folder, request.seed)
    if request.precision == "fp16":
        model = _to_half(model)
    return model


def _read(request: Request) -> tuple[onnx.ModelProto, Path | None]:
    try:
        if isinstance(request.model, bytes):
            return onnx.load_model_from_string(request.model), None
        path = Path(request.model)
        return onnx.load_model(str(path), load_external_data=False), path.parent
    except FileNotFoundError:
        raise ModelLoadError(f"no file {request.model!r}; check the path") from None
    except (OSError, DecodeError, ValueError) as error:
        raise ModelLoadError(f"{request.label} is no ONNX model ({type(error).__name__}); profile ONNX files") from None


def _to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=False)
