"""Networks from Torch7 files compute what they computed there, however they were stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import REAL
from t7_graphs import Form, containers_of, graph_of
from torch import nn

from ls3dw.core.formats.t7 import T7Object, dumps, loads, save
from ls3dw.errors import ModelError
from ls3dw.models import FAN, DepthNet
from ls3dw.models.weights import torch7
from ls3dw.models.weights.zoo import calibrate

FILES = sorted(REAL.glob("t7/*/model.t7"))

FORMS = {
    "plain": Form(),
    "in another order": Form(seed=1),
    "one flat storage": Form(flat=True),
    "batch norm of version 1": Form(old_norm=True),
    "matrices": Form(matrices=True),
    "cudnn": Form(prefix="cudnn"),
    "in training mode": Form(train=True),
    "biases left out": Form(keep_zero_bias=False),
    "wrapped": Form(wrapped=True),
    "double": Form(dtype="float64"),
    "another eps": Form(eps=1e-3),
    "all at once": Form(2, True, True, True, "cudnn", True, False, True, "float32", 1e-4),
}


def random_network(network: nn.Module, size: int, seed: int = 0) -> nn.Module:
    """Give every weight and statistic a value of its own, so that none can stand in for another; one bias is 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.normal_(std=0.1, generator=generator)
        calibrate(network, torch.rand((2, in_channels(network), size, size), generator=generator))
        for name, value in network.state_dict().items():
            if name.endswith("num_batches_tracked") or name == "conv_last0.bias":
                value.zero_()
    return network.eval()


def in_channels(network: nn.Module) -> int:
    return next(network.parameters()).shape[1]


def outputs(network: nn.Module, size: int) -> list[np.ndarray]:
    x = torch.rand((1, in_channels(network), size, size), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        result = network(x)
    return [value.numpy() for value in (result if isinstance(result, list) else [result])]


@pytest.fixture(scope="module")
def fan() -> FAN:
    network = random_network(FAN(stacks=2, features=32, in_channels=5, pooling="max", stem=12), 64)
    assert isinstance(network, FAN)
    return network


def imported(stored: T7Object) -> torch7.Torch7Network:
    """Import a network by way of a file's bytes."""
    return torch7.convert(loads(dumps(stored)), "file")


@pytest.mark.skipif(not FILES, reason="needs files written by Torch7")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_real_networks_give_torch7s_outputs(path: Path) -> None:
    network = torch7.read(path).build()
    with torch.no_grad():
        found = network(torch.from_numpy(np.load(path.with_name("in64_input.npy"))))
    for number, heatmaps in enumerate(found, 1):
        np.testing.assert_allclose(heatmaps, np.load(path.with_name(f"in64_out{number}.npy")), rtol=0, atol=3e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_network_back(fan: FAN, form: Form) -> None:
    network = imported(graph_of(fan, form))
    sizes = {"stacks": 2, "features": 32, "in_channels": 5, "pooling": "max", "stem": 12}
    assert network.network == {"class": "FAN", **sizes}
    for key, value in fan.state_dict().items():
        np.testing.assert_allclose(network.state[key], value, rtol=2e-5, atol=2e-5, err_msg=key)
    for found, wanted in zip(outputs(network.build(), 64), outputs(fan, 64), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_half_precision(fan: FAN) -> None:
    network = imported(graph_of(fan, Form(dtype="float16")))
    assert network.state["l1.weight"].dtype == torch.float32
    torch.testing.assert_close(network.state["l1.weight"], fan.state_dict()["l1.weight"], rtol=1e-3, atol=1e-6)


def test_findings_tell_the_oddities(fan: FAN) -> None:
    assert imported(graph_of(fan, Form())).findings == ()
    text = "\n".join(imported(graph_of(fan, FORMS["all at once"])).findings)
    for word in ("running_std", "matrices", "cudnn", "training", "absent", "shared storage"):
        assert word in text


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("stacks", [1, 3])
def test_pooling_and_stacks_come_from_the_file(pooling: Any, stacks: int) -> None:
    with torch.random.fork_rng():
        network = random_network(FAN(stacks, 16, pooling=pooling), 64, seed=stacks)
    found = imported(graph_of(network, Form(seed=3)))
    assert found.network == {"class": "FAN", "stacks": stacks, "features": 16, "in_channels": 3, "pooling": pooling}
    for ours, theirs in zip(outputs(found.build(), 64), outputs(network, 64), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stem", [0, 3, -2])
def test_a_stem_that_cannot_be_halved_is_refused(stem: int) -> None:
    with pytest.raises(ValueError, match=f"stem={stem}; expected an even number"):
        FAN(1, 16, stem=stem)


@pytest.mark.parametrize("form", [Form(), FORMS["all at once"]], ids=["plain", "all at once"])
def test_depth_network(form: Form) -> None:
    network = random_network(DepthNet((1, 2, 3, 1), width=4), 256)
    assert isinstance(network, DepthNet)
    form = replace(form, wrapped=False)
    for stored in (containers_of(network, form), graph_of(network, form)):
        found = imported(stored)
        assert found.network == {"class": "DepthNet", "layers": [1, 2, 3, 1], "width": 4}
        np.testing.assert_allclose(outputs(found.build(), 256), outputs(network, 256), rtol=0, atol=1e-4)


def test_biases_before_batch_norms_are_kept() -> None:
    """Torch7's residual networks have them, ours do not."""
    network = random_network(DepthNet((1, 1, 1, 1), width=4), 256)
    stored = graph_of(network, Form())
    shift = np.linspace(-1, 1, 4, dtype=np.float32)
    module(stored, "nn.SpatialConvolution", 1).fields["bias"] = shift
    module(stored, "nn.SpatialBatchNormalization", 1).fields["running_mean"] += shift
    found = imported(stored)
    assert found.findings == ("biases moved into the batch norm after them: 1",)
    np.testing.assert_allclose(outputs(found.build(), 256), outputs(network, 256), rtol=0, atol=1e-5)


def test_graphs_within_containers(fan: FAN) -> None:
    graph = graph_of(fan, Form())
    parts = T7Object("nn.ParallelTable", 1, {"modules": [T7Object("nn.Identity"), graph]})
    twice = T7Object("nn.ConcatTable", 1, {"modules": [T7Object("nn.Identity"), T7Object("nn.Identity")]})
    second = T7Object("nn.SelectTable", 1, {"index": 2})
    stored = T7Object("nn.Sequential", 1, {"modules": [twice, parts, second]})
    torch.testing.assert_close(dict(imported(stored).state), dict(fan.state_dict()), rtol=1e-6, atol=1e-6)


def test_a_network_in_a_checkpoint(fan: FAN, tmp_path: Path) -> None:
    save(tmp_path / "checkpoint.t7", {"epoch": 3, "model": graph_of(fan, Form())})
    assert torch7.read(tmp_path / "checkpoint.t7").network["stacks"] == 2
    save(tmp_path / "two.t7", {"a": graph_of(fan, Form()), "b": graph_of(fan, Form())})
    with pytest.raises(ModelError, match=r"two\.t7: holds a table with networks under \['a', 'b'\]; expected one"):
        torch7.read(tmp_path / "two.t7")


def module(stored: T7Object, name: str, number: int = 0) -> T7Object:
    """Find the module of a class in a stored graph."""
    nodes = stored.fields["forwardnodes"]
    modules = [node.fields["data"]["module"] for node in nodes if "module" in node.fields["data"]]
    return [found for found in modules if found.class_name == name][number]


def spoil_class(stored: T7Object) -> None:
    module(stored, "nn.ReLU", 3).class_name = "nn.Tanh"


def spoil_kernel(stored: T7Object) -> None:
    conv = module(stored, "nn.SpatialConvolution", 5)
    conv.fields["padH"] = 0


def spoil_weights(stored: T7Object) -> None:
    del module(stored, "nn.SpatialConvolution", 5).fields["weight"]


def spoil_number(stored: T7Object) -> None:
    module(stored, "nn.SpatialBatchNormalization", 1).fields["running_var"][3] = np.nan


def spoil_repeat(stored: T7Object) -> None:
    conv = module(stored, "nn.SpatialConvolution", 5)
    conv.fields["weight"] = np.broadcast_to(np.float32(1), conv.fields["weight"].shape)


def spoil_overlap(stored: T7Object) -> None:
    shared = module(stored, "nn.SpatialConvolution", 12).fields["weight"]
    for number in range(13, 40):
        fields = module(stored, "nn.SpatialConvolution", number).fields
        if fields["weight"].shape == shared.shape:
            fields["weight"] = shared


def spoil_circle(stored: T7Object) -> None:
    nodes = stored.fields["forwardnodes"]
    nodes[3].fields["data"]["mapindex"][1] = nodes[20].fields["data"]


def spoil_itself(stored: T7Object) -> None:
    relu = module(stored, "nn.ReLU")
    relu.class_name, relu.fields["modules"] = "nn.Sequential", [relu]


def spoil_pooling(stored: T7Object) -> None:
    module(stored, "nn.SpatialMaxPooling").class_name = "nn.SpatialAveragePooling"


def spoil_bias(stored: T7Object) -> None:
    module(stored, "nn.SpatialConvolution", 1).fields["bias"] = np.ones(12, np.float32)


def spoil_order(stored: T7Object) -> None:
    index = next(
        node.fields["data"]["mapindex"]
        for node in stored.fields["forwardnodes"]
        if "module" in node.fields["data"] and node.fields["data"]["module"].class_name == "nn.JoinTable"
    )
    index[1], index[2] = index[2], index[1]


SPOILT = {
    spoil_class: "nn.Tanh: this class is not understood",
    spoil_kernel: r"conv\d\.conv\d: conv .* expected conv",
    spoil_weights: "no weight",
    spoil_number: r"running_var: holds numbers that are not finite",
    spoil_repeat: "repeats its elements",
    spoil_overlap: "weights overlap",
    spoil_circle: "runs in a circle",
    spoil_itself: "more than 64 levels",
    spoil_pooling: "pooling avg and max",
    spoil_bias: r"conv2\.conv1: a bias that is not 0",
    spoil_order: r"conv\d\..*expected",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_not_the_network_is_refused(fan: FAN, spoil: Any) -> None:
    stored = graph_of(fan, Form())
    spoil(stored)
    with pytest.raises(ModelError, match=SPOILT[spoil]):
        imported(stored)


@pytest.mark.parametrize("value", [None, 3.0, {}, np.zeros(3), {"a": 1.0}, T7Object("nn.ReLU"), T7Object("x.Y")])
def test_what_is_no_network_is_refused(value: Any) -> None:
    with pytest.raises(ModelError, match=r"^file: "):
        torch7.convert(value, "file")
