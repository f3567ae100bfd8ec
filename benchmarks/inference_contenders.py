"""The ways to run a model that ``inference.py`` compares.

Each takes one image and returns detections in pixels of the input. Exported files are made once
and, in a folder that stays, used again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import cast

import onnxruntime
import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.export import export_loaded
from msdetr.build import build_model
from msdetr.data.labels import Category, LabelSpace
from msdetr.export import ExportSettings
from msdetr.export.formats import SUFFIXES
from msdetr.export.onnx_session import open_session
from msdetr.export.openvino_program import OpenVinoProgram
from msdetr.export.runners import feed
from msdetr.model.detections import select_detections
from msdetr.recipe import load_recipe
from msdetr.structures import Detections, ImageBatch, ModelOutput

NUM_CLASSES = 91
BASELINE = "native-fp32"
CONTENDERS = (
    BASELINE,
    "native-bf16",
    "compile",
    "torch-export",
    "onnx-gather",
    "onnx-grid_sample",
    "openvino",
)
Run = Callable[[ImageBatch], Detections]


@dataclass(frozen=True)
class Contender:
    """A way to run the model, ready to be used.

    Attributes:
        run: Detects in one image.
        cpu_time: Seconds that it has computed so far, of all threads and processes together.
    """

    run: Run
    cpu_time: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class Setting:
    """Resources that all contenders share.

    Attributes:
        loaded: The model, on the CPU, its attention set to the native operator.
        files: Folder of the exported files.
        threads: Threads of ONNX Runtime and OpenVINO.
        device: "cpu" or "cuda".
    """

    loaded: LoadedCheckpoint
    files: Path
    threads: int
    device: str

    @property
    def limit(self) -> int:
        """Detections per image."""
        return self.loaded.recipe.evaluation.detections_per_image


def load_random(recipe_name: str) -> LoadedCheckpoint:
    """Build a recipe's model with random weights, the same on every machine."""
    recipe = load_recipe(recipe_name)
    classes = LabelSpace.contiguous(Category(i, f"class {i}") for i in range(NUM_CLASSES))
    model = build_model(recipe.model, NUM_CLASSES).eval()
    draw_weights(model)
    model.set_attention_backend("native")
    return LoadedCheckpoint(Path("random"), model, recipe, classes, {})


@torch.no_grad()
def draw_weights(model: nn.Module) -> None:
    """Draw weights that keep the spread of activations, so that scores differ and samples move.

    Initial weights would not do: all boxes would be the anchors, all scores the same.
    """
    generator = torch.Generator().manual_seed(0)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            # The last layers of box heads move boxes a little, as trained ones do.
            scale = 0.1 if len(value) == 4 and "box_head" in name else 1.0
            value.copy_(scale * noise / value[0].numel() ** 0.5)
        elif name.endswith(("weight", "running_var")):
            value.copy_(1 + 0.1 * noise.abs())
        else:
            value.copy_(0.1 * noise)


def prepare(name: str, setting: Setting) -> Contender:
    """Make one of ``CONTENDERS`` ready to run.

    Raises:
        RuntimeError: It cannot run on the device.
    """
    match name:
        case "native-fp32" | "native-bf16":
            return Contender(_eager(setting, setting.loaded.model, bf16=name == "native-bf16"))
        case "compile":
            compiled = torch.compile(setting.loaded.model, dynamic=False)
            return Contender(_eager(setting, cast(nn.Module, compiled), bf16=False))
        case "torch-export":
            return Contender(_torch_export(setting))
        case "openvino":
            return _openvino(setting)
        case _:
            return Contender(_onnx(setting, name))


def make_files(names: list[str], setting: Setting) -> None:
    """Export what the contenders need and the folder does not hold yet, without verification."""
    for name in names:
        if name in _SETTINGS and not _file(setting, name).exists():
            export_loaded(
                setting.loaded,
                _file(setting, name),
                _SETTINGS[name],
                verified_images=0,
                force=True,
            )


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError if the block takes longer."""

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_SETTINGS = {
    "torch-export": ExportSettings(format="torch-export"),
    "onnx-gather": ExportSettings(op="gather"),
    "onnx-grid_sample": ExportSettings(op="grid_sample"),
    "openvino": ExportSettings(format="openvino"),
}


def _file(setting: Setting, name: str) -> Path:
    return setting.files / f"{name}{SUFFIXES[_SETTINGS[name].format]}"


def _eager(setting: Setting, model: nn.Module, *, bf16: bool) -> Run:
    def run(images: ImageBatch) -> Detections:
        with torch.autocast(setting.device, dtype=torch.bfloat16, enabled=bf16):
            output: ModelOutput = model(images, with_one_to_many=False)
        last = output.one_to_one
        hw = torch.tensor([images.pixels.shape[-2:]], device=images.pixels.device)
        logits, boxes = last.logits[-1].float(), last.boxes_cxcywh[-1].float()
        return select_detections(logits, boxes, hw, setting.limit)

    return run


def _torch_export(setting: Setting) -> Run:
    program = torch.export.load(_file(setting, "torch-export"))
    if setting.device != "cpu":
        program = move_to_device_pass(program, setting.device)
    module = program.module()

    def run(images: ImageBatch) -> Detections:
        scores, labels, boxes = module(images.pixels, images.padding_mask)
        return Detections(boxes, scores, labels)

    return run


def _onnx(setting: Setting, name: str) -> Run:
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[setting.device]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this ONNX Runtime has no {provider}")
    session = open_session(_file(setting, name), setting.threads, provider)

    def run(images: ImageBatch) -> Detections:
        # On a GPU the copies there and back count, too.
        feeds = {"pixels": images.pixels, "padding_mask": images.padding_mask}
        values = session.run(None, {key: value.cpu().numpy() for key, value in feeds.items()})
        scores, labels, boxes = (torch.from_numpy(value) for value in values)
        return Detections(boxes, scores, labels)

    return run


def _openvino(setting: Setting) -> Contender:
    if setting.device != "cpu":
        raise RuntimeError("runs on the CPU")
    program = OpenVinoProgram(_file(setting, "openvino"), setting.threads)

    def run(images: ImageBatch) -> Detections:
        # The way to its process and back counts, too.
        scores, labels, boxes = program.run(feed(images, ("pixels", "padding_mask")))
        return Detections(boxes, scores, labels)

    def cpu_time() -> float:
        told, _ = program.process.ask("cpu_time")
        return time.process_time() + float(told["seconds"])

    return Contender(run, cpu_time)


def agreement(first: Detections, second: Detections) -> float:
    """Return the share of the first detections found in the second: label, nearly box and score."""
    found = 0
    for index in range(first.scores.shape[1]):
        near = (first.boxes_xyxy_px[0, index] - second.boxes_xyxy_px[0]).abs().amax(-1) < 2.0
        same = first.labels[0, index] == second.labels[0]
        close = (first.scores[0, index] - second.scores[0]).abs() < 0.01
        found += int((near & same & close).any())
    return found / first.scores.shape[1]
