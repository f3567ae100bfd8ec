"""Images as users have them: files, Pillow images, arrays and tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from msdetr.data.images import decode_image
from msdetr.data.sample import Example, Sample
from msdetr.errors import UsageError
from msdetr.image_files import MAX_PIXELS, to_rgb

ImageInput = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A path; a Pillow image; an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (RGB, RGBA); a tensor
[1, H, W], [3, H, W] or [4, H, W]. Numbers are uint8, uint16 or floats from 0 to 1."""

Resize = Callable[[Example], Example]
"""Resizes an image as a model wants it; draws no random numbers."""

IMAGE_TYPES = (str, os.PathLike, Image.Image, np.ndarray, Tensor)
_SHAPES = {
    "array": "[H, W], [H, W, 1], [H, W, 3] or [H, W, 4]",
    "tensor": "[1, H, W], [3, H, W] or [4, H, W]",
}


def to_image(value: ImageInput, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Turn an image of any kind into 8-bit RGB.

    The orientation that a file or a Pillow image asks for (EXIF) is applied, 16-bit values are
    scaled, transparency is ignored.

    Args:
        value: The image.
        max_pixels: Pixels of the largest file that may be decoded.

    Raises:
        DataError: A file cannot be read as an image.
        UsageError: A Pillow image, an array or a tensor cannot be used.
    """
    if isinstance(value, str | os.PathLike):
        return decode_image(Path(value), max_pixels=max_pixels)
    if isinstance(value, Image.Image):
        return _from_pillow(value)
    if isinstance(value, np.ndarray):
        return _from_array(value, value.shape, "array")
    if isinstance(value, Tensor):
        return _from_tensor(value.detach().cpu())
    raise UsageError(
        "image",
        f"expected a path, a Pillow image, an array or a tensor, got {type(value).__name__}",
    )


def to_sample(
    value: ImageInput, transform: Resize, image_id: int, max_pixels: int = MAX_PIXELS
) -> Sample:
    """Decode and resize an image as in evaluation; it has no targets.

    Args:
        value: The image.
        transform: The resize.
        image_id: Any number, to tell the image by.
        max_pixels: Pixels of the largest file that may be decoded.

    Raises:
        DataError: As for ``to_image``.
        UsageError: As for ``to_image``.
    """
    image = to_image(value, max_pixels)
    no_boxes, no_labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    resized = transform(Example(image, no_boxes, no_labels))
    return Sample(
        pixels=functional.pil_to_tensor(resized.image),
        boxes_cxcywh=no_boxes,
        labels=no_labels,
        image_id=image_id,
        original_hw=(image.height, image.width),
    )


def _from_pillow(image: Image.Image) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    try:
        return to_rgb(turned, image.format)
    except ValueError as error:
        raise UsageError("image", str(error)) from error


def _from_tensor(tensor: Tensor) -> Image.Image:
    # numpy knows no bfloat16.
    plain = tensor.float() if tensor.is_floating_point() else tensor
    channels_last = plain.movedim(0, -1).numpy() if tensor.ndim == 3 else np.zeros(0)
    return _from_array(channels_last, tuple(tensor.shape), "tensor")


def _from_array(array: NDArray[Any], shape: tuple[int, ...], kind: str) -> Image.Image:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in {1, 3, 4})
    if not is_image or 0 in array.shape:
        raise UsageError(f"image {kind}", f"expected shape {_SHAPES[kind]}, got {list(shape)}")
    pixels = _to_bytes(array, kind)
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _to_bytes(array: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return np.asarray(array)
    if array.dtype == np.uint16:
        return np.asarray(array >> 8, dtype=np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(
            f"image {kind}", f"expected uint8, uint16 or floats from 0 to 1, got {array.dtype}"
        )
    low, high = float(array.min()), float(array.max())
    # Written so that NaN is rejected, too.
    if not (low >= 0 and high <= 1):
        raise UsageError(
            f"image {kind}", f"expected floats from 0 to 1, got {low:.4g} to {high:.4g}"
        )
    return np.asarray(np.rint(array * 255), dtype=np.uint8)
