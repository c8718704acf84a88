"""ONNX Runtime: which provider to use, at which precision, and running a partition.

Importing this imports no onnxruntime; using it does.
"""

from costmodel.integrations.ort.choice import Choice, choose_provider, selection_delegate, with_fingerprint
from costmodel.integrations.ort.providers import Provider, assigned, open_session, refused_operators
from costmodel.integrations.ort.runner import Pipeline, open_plan
from costmodel.precision import PrecisionChoice, PrecisionOption, best_precision

__all__ = [
    "Choice",
    "Pipeline",
    "PrecisionChoice",
    "PrecisionOption",
    "Provider",
    "assigned",
    "best_precision",
    "choose_provider",
    "open_plan",
    "open_session",
    "refused_operators",
    "selection_delegate",
    "with_fingerprint",
]
