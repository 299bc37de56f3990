"""What samples look like before a model sees them: their range, and whether they can be data at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_CAFFE = (123.68, 116.779, 103.939)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RANGES: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "-1..1": ((127.5,), (127.5,)),
        "0..1": ((0.0,), (255.0,)),
        "0..255": ((0.0,), (1.0,)),
        "imagenet-mean": (_CAFFE, (1.0, 1.0, 1.0)),
        "imagenet-standard": (tuple(255 * m for m in _MEAN), tuple(255 * d for d in _DEVIATION)),
    }
)
"""Name -> (subtract, then divide by), of bytes 0 to 255, red first.

`-1..1` is TF-slim's inception preprocessing and Keras' "tf" mode, `imagenet-mean` that of VGG and Caffe (Keras "caffe",
which also wants `--channel-order bgr`), `imagenet-standard` PyTorch's (Keras "torch").
"""

NEAR = 0.2
"""|ln| within which a measured factor is that of two ranges: other images vary that much; a guess."""


def ranges_apart(factor: float) -> list[tuple[str, str]]:
    """(given, trained on) of `RANGES` of which the first gives numbers `factor` times as large, the nearest first.

    `factor` is that of the deviations, above 0.
    """
    divisors = {name: sum(divided) / len(divided) for name, (_, divided) in RANGES.items()}
    off = {
        (given, trained): abs(math.log(divisors[trained] / divisors[given] / factor))
        for given in RANGES
        for trained in RANGES
        if divisors[given] != divisors[trained]
    }
    return sorted((pair for pair in off if off[pair] <= NEAR), key=lambda pair: off[pair])


def ends(name: str) -> tuple[float, float]:
    """(lowest, highest) number that a range of `RANGES` makes of bytes, over its channels."""
    offset, scale = RANGES[name]
    return tuple(  # type: ignore[return-value] # two of two
        pick((byte - shift) / by for shift, by in zip(offset, scale, strict=True))
        for pick, byte in ((min, 0), (max, 255))
    )


def lies_in(low: float, high: float, name: str) -> bool:
    """Whether numbers from `low` to `high` may be of a range of `RANGES`: it holds them, and no narrower one does.

    Floating-point arrays are taken as they are, whatever range is said to be theirs.
    """

    def width(of: str) -> float:
        return ends(of)[1] - ends(of)[0]

    holding = [
        of for of in RANGES if ends(of)[0] - _SLACK * width(of) <= low and high <= ends(of)[1] + _SLACK * width(of)
    ]
    return name in holding and width(name) <= (1 + _SLACK) * min(map(width, holding))


_SLACK = 0.02
"""Of a range's width: resizing overshoots, and ranges nearly as wide are not told apart; a guess."""


@dataclass(frozen=True, kw_only=True)
class InputSummary:
    """Numbers of all samples together, as the model is given them; of several inputs the first."""

    samples: int
    distinct: int
    """Samples that differ from all before them, bit by bit."""
    low: float
    high: float
    mean: float
    deviation: float
    neighbours: float | None = None
    """Correlation of pixels with those beside and below them, -1 to 1; photographs have above 0.5, noise about 0. None
    where samples are no images."""
    declared: bool | None = None
    """Whether the numbers lie in the range that the user says is the model's, by `--preprocess`; None: nobody says."""

    @property
    def constant(self) -> bool:
        """Whether every number of every sample is the same."""
        return self.deviation == 0

    @property
    def centred(self) -> bool:
        """Whether 0 lies well inside the range, as preprocessing that subtracts a mean or half the range makes it."""
        return self.low < 0 < self.high and abs(self.mean) < self.deviation
