"""A bare checkpoint's tensors in the graph of a named backbone, or of one that the user's code builds."""

from __future__ import annotations

from bncheck.facts.errors import UsageError
from bncheck.settings.options import RunOptions
from bncheck.sources.raw import RawModel


def with_network(raw: RawModel, options: RunOptions, shape: tuple[int | None, ...] | None) -> RawModel:
    """The model that `options` name, with the values of `raw`; `raw` itself where they name none.

    `shape` is that of one sample, as far as it is known. Raises UsageError where the tensors do not fit the network.
    """
    if options.model is None and options.builder is None:
        return raw
    if options.model is not None and options.builder is not None:
        raise UsageError("--model and --builder exclude each other")
    from bncheck.backbones.build import build  # noqa: PLC0415 - only bare checkpoints need one
    from bncheck.backbones.builders import load_builder  # noqa: PLC0415 - as above
    from bncheck.backbones.registry import parse  # noqa: PLC0415 - as above

    what = parse(options.model) if options.model is not None else load_builder(options.builder or "")
    return build(what, raw.tensors, path=raw.path, input_shape=shape)
