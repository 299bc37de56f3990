"""Encoded images -> bytes of one size, by TensorFlow's decoders, in a graph of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.facts.errors import ReadError

NO_IMAGE = "not an image that can be decoded (PNG, JPEG, GIF, BMP)"


class Decoder:
    """PNG, JPEG, GIF (its first frame), BMP -> (height, width, channels), bilinear with antialiasing. Thread-safe."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        tf = load_tensorflow()
        graph = tf.Graph()
        with graph.as_default():
            self._content = tf.compat.v1.placeholder(tf.string, [])
            image = tf.io.decode_image(self._content, channels=channels, expand_animations=False)
            image = tf.ensure_shape(image, [None, None, channels])
            resized = tf.image.resize(image, [height, width], antialias=True)
            self._image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
        self._refusal: Any = tf.errors.OpError
        self._session = tf.compat.v1.Session(graph=graph)

    def decode(self, content: bytes, where: str) -> NDArray[np.uint8]:
        """One image. Raises ReadError, naming `where`."""
        try:
            image: NDArray[np.uint8] = self._session.run(self._image, {self._content: content})
        except self._refusal:
            raise ReadError(where, NO_IMAGE) from None
        return image
