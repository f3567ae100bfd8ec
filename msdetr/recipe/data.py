"""Recipe section ``data``: which images, how they are read, resized and augmented."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from msdetr.recipe.section import FilePath, Fraction, Images, Pixels, Section, SidePx


class SplitRecipe(Section):
    """Files of one split where they differ from the COCO layout; relative to ``data.root``."""

    images: FilePath | None = Field(default=None, description="Folder of the images.")
    annotations: FilePath | None = Field(default=None, description="COCO-format annotation file.")
    limit: Images | None = Field(
        default=None, ge=1, description="Images used, the first ones by ascending id; null: all."
    )


class ShapesRecipe(Section):
    """Size of the embedded shapes data set; used where ``data.source`` is shapes."""

    num_train: Images = Field(default=2000, ge=1, le=1_000_000, description="Training images.")
    num_val: Images = Field(default=200, ge=1, le=1_000_000, description="Validation images.")


class AugmentationRecipe(Section):
    """Random flip, resize, crop and colors of training images; all sizes in pixels."""

    flip_probability: Fraction = Field(default=0.5, description="Probability of a horizontal flip.")
    train_sizes: tuple[SidePx, ...] = Field(
        default=tuple(range(480, 801, 32)), min_length=1, description="Short sides to draw from."
    )
    max_size: SidePx = Field(default=1333, description="Longest side after resizing.")
    crop_probability: Fraction = Field(
        default=0.5, description="Probability of a crop before resizing."
    )
    crop_pre_sizes: tuple[SidePx, ...] = Field(
        default=(400, 500, 600),
        min_length=1,
        description="Short sides to draw from before the crop.",
    )
    crop_min: SidePx = Field(default=384, description="Smallest side of a crop.")
    crop_max: SidePx = Field(default=600, description="Largest side of a crop.")
    color_jitter: Fraction = Field(
        default=0.0,
        description="Largest relative change of brightness, contrast and saturation; 0 none.",
    )


Channels = tuple[float, float, float]
PositiveChannels = tuple[
    Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
]


class DataRecipe(Section):
    """Data set, label space, image sizes."""

    source: Literal["coco", "shapes"] = Field(
        default="coco", description="coco: COCO-format files; shapes: the embedded generator."
    )
    root: FilePath | None = Field(
        default=None,
        description="Folder with train2017/, val2017/ and annotations/instances_*2017.json.",
    )
    train: SplitRecipe = Field(default=SplitRecipe(), description="Files of the training split.")
    val: SplitRecipe = Field(default=SplitRecipe(), description="Files of the validation split.")
    label_space: Literal["contiguous", "coco91"] = Field(
        default="coco91",
        description="Labels: contiguous (0..K-1 in order of category ids) or coco91 (raw ids).",
    )
    shapes: ShapesRecipe = Field(
        default=ShapesRecipe(), description="Size of the embedded data set."
    )
    allow_outside: bool = Field(
        default=False,
        description="Whether annotations may name images outside root and the image folder.",
    )
    unreadable_images: Literal["stop", "skip"] = Field(
        default="stop",
        description="Missing or damaged training images: stop, or skip (use the next one).",
    )
    max_image_pixels: Pixels = Field(
        default=178_956_970,
        ge=1,
        description="Pixels of the largest image that is decoded; larger files are unreadable.",
    )
    num_workers: int = Field(
        default=4, ge=0, le=256, description="Worker processes that read images."
    )
    augmentation: AugmentationRecipe = Field(
        default=AugmentationRecipe(), description="Augmentation of training images."
    )
    eval_size: SidePx = Field(default=800, description="Short side in evaluation, in pixels.")
    eval_max_size: SidePx = Field(
        default=1333, description="Longest side in evaluation, in pixels."
    )
    pad_multiple: Pixels = Field(
        default=1,
        ge=1,
        le=4096,
        description="Sides of batches are padded to a multiple of this, in pixels. With the "
        "longest side as the multiple, an image looks the same in every batch.",
    )
    mean: Channels = Field(
        default=(0.485, 0.456, 0.406),
        description="Mean of red, green, blue, images scaled to 0..1; that of the weights of a "
        "timm/NAME backbone unless given.",
    )
    std: PositiveChannels = Field(
        default=(0.229, 0.224, 0.225),
        description="Standard deviation of red, green, blue; likewise.",
    )
