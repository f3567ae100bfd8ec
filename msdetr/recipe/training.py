"""Recipe sections ``train`` and ``evaluation``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from msdetr.recipe.section import Detections, Epochs, Images, Seconds, Section, Steps


class EmaRecipe(Section):
    """Exponential moving average of the weights."""

    decay: float = Field(
        default=0.9997, gt=0, lt=1, description="Weight of the old average in every step."
    )


class TrainRecipe(Section):
    """Optimisation: AdamW over a fixed number of epochs."""

    batch_size: Images = Field(
        default=16, ge=1, description="Images per optimizer step, over all processes together."
    )
    images_per_forward: Images = Field(
        default=2, ge=1, description="Images per forward pass of one process; divides batch_size."
    )
    epochs: Epochs = Field(default=12, ge=1, description="Passes over the training images.")
    max_seconds: Seconds | None = Field(
        default=None,
        gt=0,
        description="Training time after which the run evaluates and ends, in seconds without "
        "evaluations; null: no limit.",
    )
    lr: float = Field(default=2e-4, gt=0, description="Learning rate.")
    backbone_lr: float = Field(default=2e-5, ge=0, description="Learning rate of the backbone.")
    linear_projection_lr_factor: float = Field(
        default=0.1, ge=0, description="Factor of lr for sampling offsets and reference points."
    )
    weight_decay: float = Field(default=1e-4, ge=0, description="Weight decay of AdamW.")
    schedule: Literal["step", "cosine"] = Field(
        default="step",
        description="step: drops after lr_drop_epochs; cosine: down to 0 over all steps.",
    )
    lr_drop_epochs: tuple[Annotated[Epochs, Field(ge=1)], ...] = Field(
        default=(11,),
        description="Finished epochs after which the learning rates drop; schedule step.",
    )
    lr_drop_factor: float = Field(
        default=0.1, gt=0, le=1, description="Factor of each drop; schedule step."
    )
    warmup_steps: Steps = Field(
        default=0, ge=0, description="Optimizer steps of linear warm-up; 0 for none."
    )
    clip_norm: float | None = Field(
        default=0.1, gt=0, description="Maximum L2 norm of all gradients; null: no clipping."
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Arithmetic of the layers; boxes and losses are always fp32."
    )
    ema: EmaRecipe | None = Field(default=None, description="Averaging of the weights; null: off.")
    compile: bool = Field(default=False, description="Compile the model with torch.compile.")
    checkpoint_encoder: bool = Field(
        default=False,
        description="Recompute encoder activations in the backward pass to save memory.",
    )
    seed: int = Field(default=42, ge=0, le=2**32 - 1, description="Seed of everything random.")
    keep_every_epochs: Epochs | None = Field(
        default=None,
        ge=1,
        description="Epochs between checkpoints that are kept; null: only last and best.",
    )
    log_every_steps: Steps = Field(
        default=50, ge=1, description="Optimizer steps between logged rows."
    )


class EvaluationRecipe(Section):
    """Evaluation during and after training."""

    detections_per_image: Detections = Field(
        default=100, ge=1, description="Detections kept per image, by descending score."
    )
    every_epochs: Epochs = Field(default=1, ge=1, description="Epochs between evaluations.")
    batch_size: Images = Field(
        default=1, ge=1, description="Images per forward pass of one process."
    )
    nms_threshold: float | None = Field(
        default=None, gt=0, le=1, description="IoU of the class-wise suppression; null: none."
    )
