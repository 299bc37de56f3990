"""Conversions that several tests look at, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow."""
    from bncheck.compare.twins.twins import load_tensorflow

    return load_tensorflow()


@pytest.fixture(scope="session")
def net(tf: Any) -> Callable[..., Any]:
    """(name, seed, batch) -> graph and maker of a small net."""
    from lite_nets import build

    return cache(lambda name, seed=0, batch=None: build(tf, name, seed, batch))


@pytest.fixture(scope="session")
def lite(tf: Any, net: Callable[..., Any]) -> Callable[..., bytes]:
    """(net, scheme, seed) -> TFLite file, calibrated on 32 samples."""
    from lite_nets import images

    from bncheck.compare.litert.convert import convert

    @cache
    def made(name: str, scheme: str = "float", seed: int = 0) -> bytes:
        return convert(tf, net(name, seed)[0], scheme, [images(32)])

    return made
