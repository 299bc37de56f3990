"""Node data for Model Explorer: its own classes read it, its own readers' graphs have the nodes that it names."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import html_examples as examples
import pytest
from report_example import example

import bncheck
from bncheck import testing
from bncheck.judge.judge import judge
from bncheck.report.wire import model_explorer

FIXTURES = Path(__file__).parents[3] / "fixtures"
FROZEN = FIXTURES / "tiny" / "bn205_served_in_train_mode" / "broken_frozen" / "frozen.pb"
LITE = FIXTURES / "tiny" / "bn406_not_folded"


def results(report: bncheck.Report) -> dict[str, dict[str, Any]]:
    """What the report's node data say, by key."""
    stream = StringIO()
    model_explorer.write(report, stream)
    document = json.loads(stream.getvalue())
    assert set(document) == {"results"}
    found: dict[str, dict[str, Any]] = document["results"]
    assert all(set(result) == {"value", "bgColor", "textColor"} for result in found.values())
    return found


def test_findings_stand_at_their_sites() -> None:
    """Where nothing was measured, each site carries the codes of its layer, coloured by the worst of them."""
    found = results(example())
    site = example().layers[0].sites[0].name
    assert found[site]["value"] == "error: BN101 BN201 BN218"
    assert found[site]["bgColor"] == model_explorer._ERROR


def test_nothing_found_is_told() -> None:
    """A layer without findings is coloured too, so that it is not taken for one that was not judged."""
    found = results(examples.healthy())
    assert {result["value"] for result in found.values()} == {"nothing found"}
    assert "MobilenetV2/Conv/BatchNorm/FusedBatchNormV3" in found


def test_measured_layers_carry_decibels() -> None:
    """Quantized operators by their output tensor, sites by op; a layer that goes wrong is red."""
    report = examples.mobilenet()
    found = results(report)
    assert found["MobilenetV2/Conv/BatchNorm/Relu6"]["value"] == 35.2
    first, second = (layer.sites[0].name for layer in report.layers[:2])
    assert found[first] == {"value": 37.0, "bgColor": model_explorer._GOOD, "textColor": "#18212f"}
    assert (found[second]["value"], found[second]["bgColor"]) == (10.0, model_explorer._ERROR)


def test_what_is_no_number_is_told() -> None:
    """No error has no decibels, NaN neither; JSON has no word for infinity."""
    report = judge(
        testing.compared(
            testing.difference("a", local=0.0),
            testing.difference("b", local=float("nan")),
            layers=[testing.served(testing.batch_norm(name)) for name in ("a", "b")],
        )
    )
    assert [result["value"] for result in results(report).values()] == ["no error", "not finite"]


def test_places_are_given_only_for_graphs_it_opens() -> None:
    """It reads no MetaGraph, and in another file the same place is another node."""
    assert not [key for key in results(examples.healthy()) if key.isdecimal()]
    assert [key for key in results(bncheck.inspect_model(FROZEN)) if key.isdecimal()] == ["12"]


def test_a_run_gives_its_last_checkpoint() -> None:
    """All checkpoints have one graph, which can carry one set of values."""
    stream, last = StringIO(), StringIO()
    model_explorer.write_run(examples.run(), stream)
    model_explorer.write(examples.run()[-1], last)
    assert stream.getvalue() == last.getvalue()


def test_model_explorer_takes_it() -> None:
    """Its own classes hold what is written and write the same."""
    builder = pytest.importorskip("model_explorer.node_data_builder", reason="ai-edge-model-explorer is not installed")
    found = results(examples.mobilenet())
    held = builder.GraphNodeData(results={key: builder.NodeDataResult(**result) for key, result in found.items()})
    assert json.loads(held.to_json_string())["results"] == found


@pytest.mark.parametrize("path", [FROZEN, *sorted(LITE.rglob("*.tflite"))], ids=lambda path: path.name)
def test_model_explorer_has_these_nodes(path: Path) -> None:
    """In the graph that its reader makes of the file, a key is a node: the batch norm itself, or a linear operator."""
    adapter = pytest.importorskip("ai_edge_model_explorer_adapter", reason="its readers are not installed")
    lite = path.suffix == ".tflite"
    read = adapter.ConvertFlatbufferDirectlyToJson if lite else adapter.ConvertGraphDefDirectlyToJson
    (model,) = json.loads(read(adapter.VisualizeConfig(), str(path)))
    nodes = model["subgraphs"][0]["nodes"]
    kinds = {node["id"]: node["label"] for node in nodes}
    for node in nodes:
        for output in node["outputsMetadata"]:
            names = [entry["value"] for entry in output["attrs"] if entry["key"] == "tensor_name"]
            kinds |= dict.fromkeys(names, node["label"])
    met = {key: kinds[key] for key in results(bncheck.inspect_model(path)) if key in kinds}
    assert met
    assert set(met.values()) <= ({"conv_2d", "depthwise_conv_2d", "fully_connected"} if lite else {"FusedBatchNormV3"})
