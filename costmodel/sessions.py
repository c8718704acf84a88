"""How ONNX files are opened for inference: one thread, on the CPU, quietly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.errors import CorruptBundleError

if TYPE_CHECKING:
    import onnxruntime


def open_session(model: bytes | str, name: str) -> onnxruntime.InferenceSession:
    """A session of an ONNX file's bytes or path; `name` is for the message.

    Raises CorruptBundleError if onnxruntime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # patterns are kept per shape, and graphs differ in shape: a third of the peak
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises plain Exceptions
        raise CorruptBundleError(
            f"bundle file {name} cannot be loaded in onnxruntime ({type(error).__name__}); reinstall or retrain it"
        ) from error
