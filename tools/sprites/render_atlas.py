"""Renders the sprite atlas `freemask/assets/sprites.png` from Noto Color Emoji.

    python -m tools.sprites.render_atlas

It needs Debian's package fonts-noto-color-emoji. The atlas is committed, so nobody has to run this.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from freemask.data.sprites_drawing import ATLAS, CELL, OBJECTS
from freemask.io.paths import user_path

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
BITMAP_SIZE = 109  # the only size of this bitmap font


def render(font: Path) -> Image.Image:
    """Renders one row of squares of `CELL` pixels, in the order of `OBJECTS`."""
    face = ImageFont.truetype(str(font), BITMAP_SIZE)
    atlas = Image.new("RGBA", (CELL * len(OBJECTS), CELL))
    for index, emoji in enumerate(OBJECTS.values()):
        cell = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(cell).text((8, 8), emoji, font=face, embedded_color=True)
        cell = cell.crop(cell.getchannel("A").getbbox())
        scale = CELL / max(cell.size)
        shape = (round(cell.width * scale), round(cell.height * scale))
        atlas.paste(cell.resize(shape, Image.Resampling.LANCZOS), (index * CELL, 0))
    return atlas


def main() -> None:
    """Renders the atlas with the font of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--font", type=user_path, default=FONT, help="file of the font")
    render(parser.parse_args().font).save(ATLAS, optimize=True)


if __name__ == "__main__":
    main()
