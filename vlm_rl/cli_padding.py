"""What a process forwards where others have a picture, a video or any work at all, and it has none. It counts nothing. Composition only."""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from data.media import png_media
from data.video import frames_media
from vlm_rl.chat import Chat
from vlm_rl.packing import Item
from vlm_rl.types import Media, Sample

SIDE, FRAMES = 56, 4


def padding_of(chat: Chat) -> Callable[[str], Item]:
    """padding_of(chat)("image"): a gray picture with one token after it. Made once of each kind."""

    @cache
    def padding(kind: str) -> Item:
        prompt = chat.prompt(Sample("padding", "?", "", media=_media(kind)))
        return Item(prompt, ((chat.tokenizer.eos_token_id,),), (-1,))

    return padding


def _media(kind: str) -> tuple[Media, ...]:
    gray = np.full((FRAMES, SIDE, SIDE, 3), 128, np.uint8)
    if kind == "image":
        return (png_media(Image.fromarray(gray[0])),)
    return (frames_media(gray, 2.0),) if kind == "video" else ()
