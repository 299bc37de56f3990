"""What storing weights in integers does to them, whatever the format."""

from __future__ import annotations

SLACK = 1.01
"""On half a step: the quotient that is rounded has itself been rounded in float32."""
EXTREMES = {"int8": (-127, 127), "uint8": (0, 255), "int4": (-7, 7), "int16": (-32767, 32767), "int2": (-1, 1)}
"""Integer type -> numbers at which a weight may have been cut off."""
