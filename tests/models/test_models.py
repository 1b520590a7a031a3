"""The networks have the published names and shapes, and weights are loaded only when everything about them fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ls3dw.core.files import sha256_file
from ls3dw.core.markup import POINTS
from ls3dw.errors import ModelError
from ls3dw.models import FAN, Contract, DepthNet, Model, load
from ls3dw.models.networks.heatmaps import CELLS
from ls3dw.models.weights.contract import Kind
from ls3dw.models.weights.importing import ImportOptions, import_weights
from ls3dw.models.weights.zoo import calibrate, parameters, read_contract, save

NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
HPM = {
    *(f"bn{n}.{key}" for n in (1, 2, 3) for key in NORM),
    *(f"conv{n}.weight" for n in (1, 2, 3)),
}
CONTRACT = Contract("tiny", "2d", {"class": "FAN", "stacks": 1, "features": 16}, "", licence="CC0")


def under(prefix: str, keys: set[str]) -> set[str]:
    """Pick the keys below a module, without its name."""
    return {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}


@pytest.fixture(scope="module")
def published_fan() -> FAN:
    with torch.device("meta"):
        return FAN()


def test_fan_has_the_published_keys(published_fan: FAN) -> None:
    keys = set(published_fan.state_dict())
    level = {name for name in under("m0.", keys) if name.split(".")[0].endswith("_4")}
    assert level == {f"{branch}_4.{key}" for branch in ("b1", "b2", "b3") for key in HPM}
    blocks = {name.split(".")[0] for name in under("m3.", keys)}
    assert blocks == {f"b{branch}_{level}" for branch in (1, 2, 3) for level in (1, 2, 3, 4)} | {"b2_plus_1"}
    wide = {"downsample.2.weight", *(f"downsample.0.{key}" for key in NORM)}
    assert under("conv2.", keys) == under("conv4.", keys) == HPM | wide
    assert under("conv3.", keys) == under("top_m_0.", keys) == HPM
    top = {key.split(".")[0] for key in keys}
    stacks = {f"{name}{stack}" for name in ("m", "top_m_", "conv_last", "bn_end", "l") for stack in range(4)}
    between = {f"{name}{stack}" for name in ("bl", "al") for stack in range(3)}
    assert top == {"conv1", "bn1", "conv2", "conv3", "conv4"} | stacks | between
    assert {"conv1.bias", "conv_last0.bias", "l3.bias", "al0.bias", "bl2.bias"} <= keys


def test_fan_has_the_published_size(published_fan: FAN) -> None:
    assert parameters(published_fan) == pytest.approx(23.82e6, abs=5e3)
    shapes = {key: tuple(value.shape) for key, value in published_fan.state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["m0.b1_4.bn1.weight"] == (256,)
    assert [shapes[f"m0.b1_4.conv{n}.weight"][:2] for n in (1, 2, 3)] == [(128, 256), (64, 128), (64, 64)]
    assert shapes["al0.weight"] == (256, POINTS, 1, 1)
    assert shapes["l3.weight"] == (POINTS, 256, 1, 1)


def test_fan_gives_a_heatmap_a_point_and_stack() -> None:
    torch.manual_seed(0)
    network = FAN(3, 16, in_channels=71).eval()
    with torch.inference_mode():
        heatmaps = network(torch.rand(2, 71, 256, 256))
    assert [tuple(heatmap.shape) for heatmap in heatmaps] == [(2, POINTS, CELLS, CELLS)] * 3


def test_pooling_by_maximum_is_another_network_with_the_same_keys() -> None:
    torch.manual_seed(4)
    mean, maximum = FAN(1, 16).eval(), FAN(1, 16, pooling="max").eval()
    maximum.load_state_dict(mean.state_dict())
    picture = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        stems = [network.stem(picture) for network in (mean, maximum)]
        tops = [network.m0(stems[0]) for network in (mean, maximum)]
    for of_mean, of_maximum in (stems, tops):
        assert (of_mean - of_maximum).abs().max() > 0.01 * of_mean.std()


@pytest.mark.parametrize(
    "arguments", [{"stacks": 0}, {"features": 20}, {"features": 0}, {"features": -16}, {"pooling": "sum"}]
)
def test_fan_refuses_what_it_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        FAN(**arguments)


def test_depth_network_has_the_keys_of_a_residual_network() -> None:
    with torch.device("meta"):
        network = DepthNet()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3 + POINTS, 7, 7)
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 1, 1)
    assert shapes["layer3.35.bn3.weight"] == (1024,)
    assert shapes["fc.weight"] == (POINTS, 2048)
    blocks = [sum(key.startswith(f"layer{n}.") and key.endswith("conv2.weight") for key in shapes) for n in range(1, 5)]
    assert blocks == [3, 8, 36, 3]
    assert {key.split(".")[1] for key in shapes if "downsample" in key} == {"0"}
    assert shapes["layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    norms = {key.rsplit(".", 1)[0] for key in shapes if key.endswith("running_var")}
    assert "layer1.0.downsample.1" in norms
    assert all(f"{norm}.{key}" in shapes for norm in norms for key in NORM)


def test_depth_network_gives_a_depth_a_point() -> None:
    network = DepthNet((1, 2, 1, 1), 4).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 3 + POINTS, 256, 256)).shape == (2, POINTS)


@pytest.mark.parametrize(("layers", "width"), [((1, 1, 1), 4), ((1, 1, 0, 1), 4), ((1, 1, 1, 1), 0)])
def test_depth_network_refuses_what_it_cannot_be(layers: tuple[int, ...], width: int) -> None:
    with pytest.raises(ValueError, match="four stages"):
        DepthNet(layers, width)


def test_calibration_keeps_activations_of_order_one() -> None:
    torch.manual_seed(1)
    network, pictures = FAN(1, 16), torch.rand(2, 3, 256, 256)
    calibrate(network, pictures)
    assert not network.training
    with torch.inference_mode():
        assert 0.1 < network.stem(pictures).std() < 10


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a tiny FAN with their contract."""
    torch.manual_seed(2)
    save(FAN(1, 16), tmp_path / "tiny.safetensors", CONTRACT)
    return tmp_path / "tiny.safetensors"


def fault_of(spec: str | Path, **options: Any) -> str:
    """Return the one line that `load` ends with."""
    with pytest.raises(ModelError) as caught:
        load(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_contract(weights: Path, **changes: Any) -> None:
    path = weights.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = FAN(1, 16)
    signed = save(network, tmp_path / "a.safetensors", CONTRACT)
    model = load(tmp_path / "a.safetensors", ("2d",))
    assert isinstance(model, Model)
    assert model.contract == signed == read_contract(tmp_path / "a.safetensors")
    assert (signed.name, signed.licence) == ("tiny", "CC0")
    assert signed.sha256 == sha256_file(tmp_path / "a.safetensors")
    assert not model.network.training
    assert not any(value.requires_grad for value in model.network.parameters())
    for key, value in model.network.state_dict().items():
        wanted = network.state_dict()[key]
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted.half().to(wanted.dtype) if wanted.is_floating_point() else wanted)
    save(network, tmp_path / "b.safetensors", CONTRACT)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_statistics_that_float16_cannot_hold_are_kept(tmp_path: Path) -> None:
    network = FAN(1, 16)
    norm = network.get_submodule("bn_end0")
    norm.get_buffer("running_var").fill_(172846.5)
    norm.get_buffer("running_mean").fill_(-239.7512)
    save(network, tmp_path / "a.safetensors", CONTRACT)
    kept = load(tmp_path / "a.safetensors").network.state_dict()
    for key, value in network.state_dict().items():
        if "running" in key:
            assert torch.equal(kept[key], value), key


def test_values_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path: Path, weights: Path) -> None:
    network = FAN(1, 16)
    network.get_parameter("conv1.weight").data.fill_(1e5)  # beyond float16
    with pytest.raises(ModelError, match=r"conv1\.weight holds values that are not finite \(1 such"):
        save(network, tmp_path / "wide.safetensors", CONTRACT)
    assert not list(tmp_path.glob("wide*"))
    tensors = load_file(weights)
    tensors["bn_end0.running_var"].fill_(torch.inf)
    save_file(tensors, weights)
    change_contract(weights, sha256=sha256_file(weights))
    assert "bn_end0.running_var holds values that are not finite" in fault_of(weights)


def test_changed_bytes_are_noticed(weights: Path) -> None:
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "SHA-256" in fault_of(weights)


def test_a_truncated_file_with_the_right_checksum_is_no_safetensors(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:1000])
    change_contract(weights, sha256=sha256_file(weights))
    assert "not a safetensors file" in fault_of(weights)


def test_another_kind_is_refused(weights: Path) -> None:
    fault = fault_of(weights, kinds=("3d", "2d-to-3d"))
    assert "'2d'" in fault
    assert "3d or 2d-to-3d" in fault


def test_weights_without_contract_are_refused(weights: Path) -> None:
    weights.with_suffix(".json").unlink()
    assert "contract" in fault_of(weights)


def test_weights_of_another_network_are_refused_by_their_first_keys(weights: Path) -> None:
    change_contract(weights, network={"class": "FAN", "stacks": 1, "features": 32})
    assert "conv1.weight is (4, 3, 7, 7), expected (8, 3, 7, 7)" in fault_of(weights)
    change_contract(weights, network={"class": "FAN", "stacks": 2, "features": 16})
    assert "bl0.weight missing" in fault_of(weights)
    change_contract(weights, network=dict(CONTRACT.network))
    tensors = load_file(weights)
    save_file({**tensors, "stray": torch.zeros(1)}, weights)
    change_contract(weights, sha256=sha256_file(weights))
    assert "stray not known (1 in all)" in fault_of(weights)


@pytest.mark.parametrize("network", [{"class": "FAN", "stack": 1}, {"class": "FAN", "stacks": "four"}])
def test_arguments_that_the_network_does_not_take(weights: Path, network: dict[str, Any]) -> None:
    change_contract(weights, network=network)
    assert "tiny.json" in fault_of(weights)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"weights": Bomb()}, tmp_path / "model.pth")
    assert "which could run any code" in fault_of(tmp_path / "model.pth")
    shutil.copy(tmp_path / "model.pth", tmp_path / "model.safetensors")
    contract = {**CONTRACT.to_dict(), "sha256": sha256_file(tmp_path / "model.pth")}
    (tmp_path / "model.json").write_text(json.dumps(contract))
    assert "not a safetensors file" in fault_of(tmp_path / "model.safetensors")
    assert not (tmp_path / "executed").exists()


def test_a_safetensors_header_is_limited_before_it_is_read(tmp_path: Path, weights: Path) -> None:
    """Parsed, a header takes many times its bytes of memory."""
    entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % number for number in range(100_000)) + "}").encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    change_contract(weights, sha256=sha256_file(weights))
    assert f"a header of {len(header)} bytes" in fault_of(weights)
    weights.write_bytes((1_300_000_000).to_bytes(8, "little") + b"{}")
    change_contract(weights, sha256=sha256_file(weights))
    assert "a header of 1300000000 bytes in a file of 10" in fault_of(weights)


def test_a_contract_is_limited_in_size_and_depth(weights: Path) -> None:
    weights.with_suffix(".json").write_bytes(b"[" * 2**21)
    assert "2097152 bytes, expected at most 1048576" in fault_of(weights)
    weights.with_suffix(".json").write_bytes(b"[" * 2**19)
    assert "nested too deeply" in fault_of(weights)


@pytest.mark.parametrize(
    ("network", "kinds", "kind", "std"),
    [
        (FAN(1, 16), ("2d",), "2d", 0.0),
        (FAN(1, 16), ("2d-to-3d", "3d"), "3d", 0.0),
        (FAN(1, 16, in_channels=71), ("2d-to-3d", "3d"), "2d-to-3d", 1.0),
        (FAN(1, 16, in_channels=71), (), "2d-to-3d", 1.0),
        (DepthNet((1, 1, 1, 1), 4), ("depth",), "depth", 3.25),
    ],
)
def test_files_of_other_formats_are_loaded_by_what_is_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: torch.nn.Module,
    kinds: tuple[Kind, ...],
    kind: str,
    std: float,
) -> None:
    monkeypatch.setenv("LS3DW_HOME", str(tmp_path / "home"))
    path = tmp_path / "mine.pth.tar"
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path
    )
    model = load(path, kinds)
    assert (model.contract.kind, model.contract.guidance_std, model.contract.name) == (kind, std, "mine")
    for key, value in network.state_dict().items():
        assert torch.equal(model.network.state_dict()[key], value), key
    assert read_contract(path, kinds) == model.contract
    assert not (tmp_path / "home").exists(), "loading writes nothing"
    imported = import_weights(path, ImportOptions(kind=kind))  # type: ignore[arg-type]
    assert imported.contract == model.contract, "the same SHA-256 is recorded either way"


def test_a_file_of_another_kind_than_asked_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(FAN(1, 16).state_dict(), path)
    assert "kind 'depth' is a DepthNet with 71, try --kind 2d or 3d" in fault_of(path, kinds=("depth",))
    assert "may be of kind 2d or 3d: add --kind" in fault_of(path)


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    assert "fan-2d-small" in fault_of("fan-9d")
    assert "neither a file" in fault_of(tmp_path)


def test_every_fault_of_a_contract_is_listed() -> None:
    with pytest.raises(ModelError) as caught:
        Contract.from_dict({"name": "x", "pooling": "avg", "size": 3}, "x.json")
    for part in ("x.json", "'pooling'", "'size'", "'kind'", "'network'", "'sha256'"):
        assert part in str(caught.value)
    values = {**CONTRACT.to_dict(), "kind": "4d", "input_size": 128, "crop_rule": "mine"}
    with pytest.raises(ModelError) as caught:
        Contract.from_dict(values, "x.json")
    for part in ("'4d'", "128", "'mine'"):
        assert part in str(caught.value)
    with pytest.raises(ModelError, match="JSON object"):
        Contract.from_dict([], "x.json")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"network": {"class": "VGG"}}, "'VGG'"),
        ({"network": {"class": ["FAN"]}}, "expected an object with class 'FAN'"),
        ({"network": {"class": "DepthNet"}}, "'DepthNet'"),
        ({"network": {"class": "FAN", "in_channels": 71}}, "in_channels 71, expected 3"),
        ({"kind": "2d-to-3d"}, "guidance_std 0"),
        ({"guidance_std": "x"}, "guidance_std 'x'"),
        ({"sha256": 5}, "sha256 5, expected text"),
        ({"markup": "cofw-29"}, "'cofw-29'"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(fault: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        Contract.from_dict({**CONTRACT.to_dict(), **fault}, "x.json")
    assert said in str(caught.value)


def test_contract_builds_its_network() -> None:
    assert isinstance(CONTRACT.build(), FAN)
    depth = Contract("d", "depth", {"class": "DepthNet", "layers": [1, 1, 1, 1], "width": 4}, "", guidance_std=2.0)
    assert isinstance(depth.build(), DepthNet)
    assert Contract.from_dict(json.loads(json.dumps(depth.to_dict())), "d.json") == depth
