"""Finds the frame size that a checkpoint was trained at, from its configs.

    side in pixels = sample_size of the UNet x factor of the VAE

`sample_size` is a number (squares) or a pair (height, width). Checkpoints that were tuned from
ModelScope at another size keep its `sample_size` of 32 in their configs, so their sizes are listed
here by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freemask.types import InputError

# sizes (H, W) that the model cards state; the configs say 256x256
NAMED_SIZES = {
    "zeroscope_v2_xl": (576, 1024),
    "zeroscope_v2_30x448x256": (256, 448),
    "zeroscope_v2_dark_30x448x256": (256, 448),
    "zeroscope": (320, 576),
}
MODELSCOPE_SAMPLE = 32


@dataclass(frozen=True)
class NativeFrame:
    """The frames that a checkpoint was trained on.

    size: height and width in pixels.
    multiple: both sides of any frame must be multiples of it.
    """

    size: tuple[int, int]
    multiple: int


def native_frame_of(
    unet: Mapping[str, Any], vae: Mapping[str, Any], *, name: str = ""
) -> NativeFrame:
    """Returns the native frame that configs state.

    unet, vae: the configs of these parts.
    name: the checkpoint's folder or hub id.

    Raises `InputError` for configs that state no size.
    """
    factor = vae_factor(vae)
    sample = unet.get("sample_size")
    sides = [sample, sample] if isinstance(sample, int) else sample
    if not (isinstance(sides, list) and len(sides) == 2 and all(_is_side(x) for x in sides)):
        raise InputError(
            f"unet/config.json of checkpoint {name} has sample_size {sample!r}, which must be a "
            "number or a pair; give the size of the frames, as in --size 512x512"
        )
    if sides == [MODELSCOPE_SAMPLE] * 2 and unet.get("_class_name") == "UNet3DConditionModel":
        known = f"{name} {unet.get('_name_or_path', '')}".lower()
        for key, size in NAMED_SIZES.items():
            if key in known:
                return NativeFrame(size, factor)
    return NativeFrame((sides[0] * factor, sides[1] * factor), factor)


def vae_factor(vae: Mapping[str, Any]) -> int:
    """Returns the pixels per latent of a VAE's config. Raises `InputError` if it has no blocks."""
    blocks = vae.get("block_out_channels")
    if not isinstance(blocks, list) or not blocks:
        raise InputError("vae/config.json states no block_out_channels; it is not an AutoencoderKL")
    return int(2 ** (len(blocks) - 1))


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
