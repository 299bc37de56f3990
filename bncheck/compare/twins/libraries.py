"""TensorFlow and Keras, loaded where a model is to be run, with what to install where they are not there."""

from __future__ import annotations

from typing import Any

from bncheck.backbones import quiet_tensorflow
from bncheck.facts.errors import BncheckError
from bncheck.facts.extras import install


def load_tensorflow() -> Any:
    """The module, without its greetings; raises BncheckError with what to install."""
    try:
        return quiet_tensorflow.load_tensorflow()
    except ModuleNotFoundError as error:
        raise BncheckError(f"{error.name} is not installed, and running a model needs it: {install('tf')}") from error
