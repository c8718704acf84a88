"""Tuning a whole ONNX network through Relax, timed before and after."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.relax_integration import extract_tasks, tune_relax
from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, LocalRunner

from costmodel.errors import BackendUnavailableError, DynamicShapeError, InputError, ModelLoadError
from costmodel.integrations.tvm.cost_model import LedgCostModel
from costmodel.integrations.tvm.measuring import InProcessBuilder
from costmodel.integrations.tvm.targets import options

COST_MODELS = ("ledg", "ledg-cold", "xgb", "random")
Shapes = Mapping[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class TuneReport:
    """What a tuning run did. Latencies are medians in milliseconds.

    tasks          distinct kernels of the network
    measured       schedules that ran
    failed         schedules that did not build or run
    error          largest difference of the outputs before and after, relative to the largest output
    seconds        the whole tuning run
    model_seconds  of it inside the cost model; None for TVM's own models
    """

    model: str
    target: str
    cost_model: str
    tasks: int
    trials: int
    measured: int
    failed: int
    before_ms: float
    after_ms: float
    error: float
    seconds: float
    model_seconds: float | None
    work_dir: str

    def as_record(self) -> dict[str, Any]:
        """JSON-able, with a schema version."""
        return {"schema": 1, **asdict(self)}


def system_target(cores: int | None = None) -> dict[str, Any]:
    """LLVM for this machine's CPU and the processors this process may use."""
    cores = cores or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    return {"kind": "llvm", "mcpu": str(tvm.target.codegen.llvm_get_system_cpu()), "num-cores": cores}


def import_network(path: str | os.PathLike[str], batch: int | None = None, shapes: Shapes | None = None) -> Any:
    """The Relax module of an ONNX file with weights, fused into the kernels that are tuned.

    Raises ModelLoadError if the file or its weights cannot be read, DynamicShapeError for axes that neither `batch`
    nor `shapes` binds, InputError for operators that TVM's importer lacks.
    """
    try:
        model = onnx.load(os.fspath(path))
    except Exception as error:  # protobuf and onnx raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelLoadError(f"'{path}' cannot be read ({reason}); give an ONNX file with its weights") from error
    try:
        module = from_onnx(model, shape_dict=_input_shapes(model, batch, shapes or {}))
        passes = (
            relax.transform.DecomposeOpsForInference(),
            relax.transform.CanonicalizeBindings(),
            relax.pipeline.zero_pipeline(),
        )
        return tvm.transform.Sequential(passes)(module)
    except Exception as error:
        if isinstance(error, DynamicShapeError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"TVM cannot import '{path}' ({reason}); export it at another opset") from error


def tune_model(
    path: str | os.PathLike[str], target: Any = None, trials: int = 256, work_dir: str | os.PathLike[str] = "tuning",
    cost_model: str = "ledg", batch: int | None = None, shapes: Shapes | None = None, repeat: int = 20,
    trials_per_round: int = 32, seed: int | None = None, report: Any = None,
) -> TuneReport:  # fmt: skip
    """Tunes an ONNX network with MetaSchedule and times it before and after, with the same compilation pipeline.

    `work_dir` keeps the database: what an earlier run measured is used again, so an interrupted run goes on. `report`
    is called with one line of text at each stage.

    Raises as `import_network`; PlatformError for a target that cannot be read, BackendUnavailableError for one that is
    not this machine's CPU; InputError for an unknown cost model.
    """
    say = report or (lambda line: None)
    wanted = options(target) if target else system_target()
    if wanted.get("kind") != "llvm":
        raise BackendUnavailableError(f"tuning measures on this machine's CPU, not {wanted['kind']}; use --target llvm")
    wanted.setdefault("num-cores", system_target()["num-cores"])
    os.environ.setdefault("TVM_NUM_THREADS", str(wanted["num-cores"]))
    model = _cost_model(cost_model, wanted, seed)
    live = tvm.target.Target(wanted)
    say("importing the network")
    module = import_network(path, batch, shapes)
    tasks = extract_tasks(module, live)
    say(f"{len(tasks)} kernels; compiling without tuning")
    inputs = _random_inputs(module)
    plain = relax.build(module, live)
    before_ms, before = _measure(plain, inputs, repeat)
    say(f"before: {before_ms:.3f} ms; measuring {trials} schedules")
    folder = Path(work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    database = ms.database.JSONDatabase(work_dir=str(folder))
    already = len(database)
    started = time.perf_counter()
    if trials:
        tune_relax(
            module, {}, live, str(folder), trials, num_trials_per_iter=trials_per_round, builder=InProcessBuilder(),
            runner=LocalRunner(evaluator_config=EvaluatorConfig(number=1, repeat=5, min_repeat_ms=5)),
            database=database, cost_model=model, seed=seed,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    say("compiling with the best schedules")
    after_ms, after = _measure(_with_schedules(module, live, database), inputs, repeat)
    records = [[float(s) for s in r.run_secs or ()] for r in database.get_all_tuning_records()[already:]]
    ran = sum(bool(r) and max(r) < 1e9 for r in records)  # MetaSchedule notes a failure as 1e10 seconds
    spent = getattr(model, "seconds", None) if not isinstance(model, str) else None
    return TuneReport(
        model=Path(path).name, target=str(live), cost_model=cost_model, tasks=len(tasks), trials=trials, measured=ran,
        failed=len(records) - ran, before_ms=before_ms, after_ms=after_ms, error=_difference(before, after),
        seconds=seconds, model_seconds=sum(map(sum, spent.values())) if spent else None, work_dir=str(folder),
    )  # fmt: skip


def _with_schedules(module: Any, target: Any, database: Any) -> Any:
    """The executable with every kernel's best schedule of the database; kernels without one stay as they are."""
    with target, database, tvm.transform.PassContext(opt_level=3):
        return relax.build(relax.transform.MetaScheduleApplyDatabase()(module), target)


def _cost_model(name: str, target: Mapping[str, Any], seed: int | None) -> Any:
    if name not in COST_MODELS:
        raise InputError(f"unknown cost model {name!r}; use one of {', '.join(COST_MODELS)}")
    if name == "ledg":
        return LedgCostModel.pretrained(target, seed or 0)
    return LedgCostModel(seed=seed or 0) if name == "ledg-cold" else name


def _input_shapes(model: onnx.ModelProto, batch: int | None, shapes: Shapes) -> dict[str, list[int]]:
    """Static shapes of the inputs that are not weights."""
    weights = {w.name for w in model.graph.initializer}
    found, open_axes = {}, []
    for value in model.graph.input:
        if value.name in weights:
            continue
        given = shapes.get(value.name)
        if isinstance(given, tuple):
            found[value.name] = list(given)
            continue
        sizes = []
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            bound = shapes.get(dim.dim_param) if dim.dim_param else None
            size = batch if axis == 0 and batch else dim.dim_value or (bound if isinstance(bound, int) else 0)
            if not size and axis == 0:
                size = 1
            if not size:
                open_axes.append(f"{value.name}[{axis}] {dim.dim_param}".rstrip())
            sizes.append(size)
        found[value.name] = sizes
    if open_axes:
        raise DynamicShapeError(
            f"symbolic axes left open: {', '.join(open_axes)}; bind them with --shape NAME:DIMS", tuple(open_axes)
        )
    return found


def _random_inputs(module: Any) -> list[NDArray[Any]]:
    """Values for the parameters of `main`; integers are zero."""
    rng = np.random.default_rng(0)
    found = []
    for parameter in module["main"].params:
        shape, dtype = [int(d) for d in parameter.ty.shape], str(parameter.ty.dtype)
        floating = dtype.startswith("float")
        found.append((rng.normal(size=shape) if floating else np.zeros(shape)).astype(dtype))
    return found


def _measure(executable: Any, inputs: list[NDArray[Any]], repeat: int) -> tuple[float, list[NDArray[Any]]]:
    """Median latency in ms, and the outputs."""
    device = tvm.cpu()
    machine = relax.VirtualMachine(executable, device)
    tensors = [tvm.runtime.tensor(value, device) for value in inputs]
    made = machine["main"](*tensors)
    outputs = [o.numpy() for o in (made if not hasattr(made, "numpy") else [made])]
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        machine["main"](*tensors)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1e3, outputs


def _difference(before: list[NDArray[Any]], after: list[NDArray[Any]]) -> float:
    worst = 0.0
    for one, other in zip(before, after, strict=True):
        if one.size and np.issubdtype(one.dtype, np.floating):
            worst = max(worst, float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-9)))
    return worst
