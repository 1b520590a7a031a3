"""Weights of other formats are read without running anything in them, checked whole, and kept under a name."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fuzz_weights
import numpy as np
import pytest
import torch
from conftest import Command
from helpers import REAL
from safetensors.torch import save_file
from torch import Tensor, nn

from ls3dw.core.files import sha256_file
from ls3dw.errors import ModelError
from ls3dw.models import FAN, DepthNet, load
from ls3dw.models.weights.cache import home, published
from ls3dw.models.weights.contract import Kind
from ls3dw.models.weights.formats import read_weights
from ls3dw.models.weights.importing import Imported, ImportOptions, import_weights
from ls3dw.models.weights.pth import read_pth


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LS3DW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def fan() -> FAN:
    torch.manual_seed(0)
    network = FAN(2, 16)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
    return network.eval()


def save_archive(weights: Any, path: Path) -> None:
    torch.save(weights, path)


def save_stream(weights: Any, path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def save_checkpoint(weights: Mapping[str, Tensor], path: Path) -> None:
    """Save as training scripts do, with what else they keep."""
    trained = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(trained.parameters(), 0.1, momentum=0.9)
    trained(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    extra = {"epoch": 3, "arch": "fan", "best": np.float64(0.5), "optimizer": optimizer.state_dict()}
    torch.save(extra | {"state_dict": wrapped}, path, _use_new_zipfile_serialization=False)


def save_old(weights: Mapping[str, Tensor], path: Path) -> None:
    """Save without the counters of batch norms, in one flat storage, half of it as double: as old files have it."""
    flat = torch.cat([value.double().flatten() for value in weights.values()])
    views, start = {}, 0
    for key, value in weights.items():
        views[key] = flat[start : start + value.numel()].view(value.shape)
        start += value.numel()
    torch.save({key: view for key, view in views.items() if "num_batches" not in key}, path)


def save_tensors(weights: Mapping[str, Tensor], path: Path) -> None:
    save_file(dict(weights), path)


FORMS: dict[str, tuple[str, Callable[[Mapping[str, Tensor], Path], None]]] = {
    "archive": ("a.pth", save_archive),
    "stream": ("a.pth.tar", save_stream),
    "checkpoint": ("a.pth.tar", save_checkpoint),
    "old": ("a.pth", save_old),
    "safetensors": ("a.safetensors", save_tensors),
}


def take(path: Path, kind: Kind = "2d", **options: Any) -> Imported:
    return import_weights(path, ImportOptions(kind=kind, **options))


def fault_of(path: Path, kind: Kind | None = "2d", **options: Any) -> str:
    """Return the one line that the import ends with; nothing may be left behind."""
    before = sorted(home().rglob("*"))
    with pytest.raises(ModelError) as caught:
        import_weights(path, ImportOptions(kind=kind, **options))
    assert "\n" not in str(caught.value)
    assert sorted(home().rglob("*")) == before
    return str(caught.value)


def assert_same(network: nn.Module, other: nn.Module) -> None:
    wanted = other.state_dict()
    for key, value in network.state_dict().items():
        assert value.dtype == wanted[key].dtype
        assert torch.equal(value, wanted[key]), key


@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back_to_the_bit(fan: FAN, tmp_path: Path, form: str) -> None:
    name, save = FORMS[form]
    save(fan.state_dict(), tmp_path / name)
    made = take(tmp_path / name)
    model = load("a", ("2d",))
    assert_same(model.network, fan)
    assert model.contract == made.contract
    assert dict(model.contract.network) == {
        "class": "FAN",
        "stacks": 2,
        "features": 16,
        "in_channels": 3,
        "pooling": "avg",
    }
    assert model.contract.source["sha256"] == sha256_file(tmp_path / name)
    assert made.parameters == sum(value.numel() for value in fan.parameters())


def test_a_torchscript_archive_gives_its_tensors(fan: FAN, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(fan, torch.rand(1, 3, 256, 256), check_trace=False).save(str(tmp_path / "a.zip"))
    made = take(tmp_path / "a.zip", name="scripted")
    assert made.format == "TorchScript archive"
    assert_same(load("scripted").network, fan)


def test_the_depth_network_is_inferred(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = DepthNet((1, 2, 3, 1), 8)
    save_checkpoint(network.state_dict(), tmp_path / "deep.pth.tar")
    made = take(tmp_path / "deep.pth.tar", "depth")
    assert dict(made.contract.network) == {"class": "DepthNet", "layers": [1, 2, 3, 1], "width": 8}
    assert made.contract.guidance_std == pytest.approx(3.25)
    assert_same(load("deep").network, network)


def test_options(fan: FAN, tmp_path: Path) -> None:
    save_archive(fan.state_dict(), tmp_path / "My net (1).pth")
    made = take(tmp_path / "My net (1).pth", "3d", pooling="max", half=True)
    assert (made.contract.name, made.contract.kind, made.contract.network["pooling"]) == ("my-net-1", "3d", "max")
    assert torch.equal(load("my-net-1").network.conv1.weight, fan.conv1.weight.half().float())


def test_names(fan: FAN, tmp_path: Path) -> None:
    save_archive(fan.state_dict(), tmp_path / "a.pth")
    first = take(tmp_path / "a.pth")
    assert take(tmp_path / "a.pth") == first, "the same file again is no conflict"
    save_archive(FAN(1, 16).state_dict(), tmp_path / "b.pth")
    assert "choose another --name, or --replace" in fault_of(tmp_path / "b.pth", name="a")
    assert take(tmp_path / "b.pth", name="a", replace=True).contract.network["stacks"] == 1
    for name in ("fan-2d-small", "../a", "none", "", "a/b"):
        assert name == "" or "choose another" in fault_of(tmp_path / "a.pth", name=name)


def test_a_file_named_as_a_published_one_must_be_it(fan: FAN, tmp_path: Path) -> None:
    item = published()["2dfan4"]
    save_archive(fan.state_dict(), tmp_path / item.file)
    assert "expected 11f355bf06... of the published" in fault_of(tmp_path / item.file, None)
    save_archive(fan.state_dict(), tmp_path / "a.pth")
    assert "expected 11f355bf06" in fault_of(tmp_path / "a.pth", name="2dfan4")
    assert "add --kind" in fault_of(tmp_path / "a.pth", None)


def test_another_kind_is_named(fan: FAN, tmp_path: Path) -> None:
    save_archive(fan.state_dict(), tmp_path / "a.pth")
    assert "a FAN with 3 input channels" in fault_of(tmp_path / "a.pth", "2d-to-3d")
    assert "try --kind 2d or 3d" in fault_of(tmp_path / "a.pth", "depth")


def test_a_mismatch_names_keys_and_shapes(fan: FAN, tmp_path: Path) -> None:
    weights = fan.state_dict()
    weights["l1.weight"] = torch.zeros(98, 16, 1, 1)
    weights["stray"] = torch.zeros(1)
    del weights["conv2.bn1.weight"]
    save_archive(weights, tmp_path / "a.pth")
    fault = fault_of(tmp_path / "a.pth")
    assert "conv2.bn1.weight missing; stray not known; l1.weight is (98, 16, 1, 1), expected (68, 16, 1, 1)" in fault
    assert "(3 in all)" in fault
    save_archive({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "vgg.pth")
    assert "no conv1.weight (first is 'features.0.weight')" in fault_of(tmp_path / "vgg.pth")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused(fan: FAN, tmp_path: Path, value: float) -> None:
    weights = {key: tensor.clone() for key, tensor in fan.state_dict().items()}
    weights["bn1.weight"][3] = value
    save_archive(weights, tmp_path / "a.pth")
    assert "bn1.weight holds values that are not finite" in fault_of(tmp_path / "a.pth")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("where", ["root", "beside", "within"])
def test_nothing_is_ever_run(fan: FAN, tmp_path: Path, protocol: int, where: str) -> None:
    bomb = Bomb(tmp_path / "executed")
    weights: Any = {"root": bomb, "beside": {"state_dict": fan.state_dict(), "x": bomb}, "within": {"conv1": bomb}}
    torch.save(weights[where], tmp_path / "a.pth", pickle_protocol=max(protocol, 2))
    (tmp_path / "b.pth").write_bytes(pickle.dumps(weights[where], protocol))
    for name in ("a.pth", "b.pth"):
        assert fault_of(tmp_path / name)
    assert "which could run any code" in fault_of(tmp_path / "a.pth")
    assert not (tmp_path / "executed").exists()


def test_a_whole_network_needs_its_code(fan: FAN, tmp_path: Path) -> None:
    torch.save(fan, tmp_path / "a.pth")
    assert "it calls 'ls3dw.models.networks.fan.FAN'" in fault_of(tmp_path / "a.pth")
    torch.save(fan, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert "save the network's state_dict()" in fault_of(tmp_path / "b.pth")


def repack(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **options: Any) -> None:
    """Write an archive again with its members changed, or left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)


def test_archives_that_lie_are_refused(fan: FAN, tmp_path: Path) -> None:
    whole, made = tmp_path / "a.pth", tmp_path / "b.pth"
    save_archive(fan.state_dict(), whole)
    repack(whole, made, lambda name, data: data)
    assert read_pth(made).tensors.keys() == fan.state_dict().keys()
    repack(whole, made, lambda name, data: data, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in fault_of(made)
    repack(whole, made, lambda name, data: None if name.endswith("data/3") else data)
    assert "'data/3' is missing" in fault_of(made)
    repack(whole, made, lambda name, data: data[:-4] if name.endswith("data/3") else data)
    assert "storage '3' has" in fault_of(made)
    repack(whole, made, lambda name, data: b"big" if name.endswith("byteorder") else data)
    assert "big-endian" in fault_of(made)
    repack(whole, made, lambda name, data: None if name.endswith("data.pkl") else data)
    assert "without one data.pkl" in fault_of(made)


def test_an_archive_on_several_disks_is_damaged(fan: FAN, tmp_path: Path) -> None:
    save_archive(fan.state_dict(), tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    data[data.rindex(b"PK\x06\x07") + 16] = 2
    (tmp_path / "a.pth").write_bytes(data)
    assert "damaged, the archive cannot be read" in fault_of(tmp_path / "a.pth")


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path: Path) -> None:
    storage = torch.zeros(10)
    torch.save({"conv1.weight": storage.as_strided((64, 3, 7, 7), (0, 0, 0, 0))}, tmp_path / "a.pth")
    assert "tensors of 37632 bytes in a file of" in fault_of(tmp_path / "a.pth")


def test_many_views_of_one_storage_are_refused(tmp_path: Path) -> None:
    """A file of some kilobytes would fill the memory."""
    storage = torch.zeros(10_000)
    torch.save({f"{number}.conv1.weight": storage.view(100, 100) for number in range(100)}, tmp_path / "a.pth")
    assert "tensors of 4000000 bytes in a file of" in fault_of(tmp_path / "a.pth")


CHECKPOINTS: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
    "examples": lambda state: {
        "epoch": 3,
        "arch": "fan",
        "state_dict": under("module.", state),
        "best_prec1": torch.tensor([71.2]),
        "optimizer": {},
    },
    "tutorial": lambda state: {"epoch": 3, "model_state_dict": dict(state), "loss": torch.tensor(0.1)},
    "compiled": lambda state: under("_orig_mod.", state),
    "compiled in parallel": lambda state: under("module._orig_mod.", state),
    "parallel, compiled": lambda state: under("_orig_mod.module.", state),
    "lightning": lambda state: {"epoch": 1, "state_dict": under("model.", state), "hyper_parameters": {}},
    "version": lambda state: {"state_dict": dict(state), "torch": torch.__version__},
    "deep": lambda state: {"trainer": {"last": {"model": under("model.module.", state)}}},
    "averaged by torch": lambda state: under("module.", state) | {"n_averaged": torch.tensor(9)},
    "averaged beside": lambda state: {"state_dict": zeros(state), "state_dict_ema": dict(state)},
    "averaged within": lambda state: {"model": zeros(state), "ema": {"module": dict(state), "decay": 0.9}},
    "both in one": lambda state: under("online_model.", zeros(state)) | under("ema_model.module.", state),
    "with a loss": lambda state: {"state_dict": under("model.", state) | {"criterion.weight": torch.ones(2)}},
}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def zeros(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("save", [save_archive, save_stream])
def test_the_state_dict_of_a_checkpoint_is_found(
    fan: FAN, tmp_path: Path, name: str, save: Callable[[Any, Path], None]
) -> None:
    save(CHECKPOINTS[name](fan.state_dict()), tmp_path / "a.pth.tar")
    made = take(tmp_path / "a.pth.tar")
    assert_same(load("a").network, fan)
    if "ema" in str(CHECKPOINTS[name](fan.state_dict()).keys()):
        assert "ema" in made.format, "it is said that these are the averaged weights"


def test_one_of_two_networks_is_not_chosen_in_silence(fan: FAN, tmp_path: Path) -> None:
    torch.save({"teacher": fan.state_dict(), "student": fan.state_dict()}, tmp_path / "a.pth")
    assert "networks under 'teacher' and 'student'; save the state_dict() of one" in fault_of(tmp_path / "a.pth")


def test_deep_and_cyclic_pickles_end(tmp_path: Path) -> None:
    deep = b"\x80\x02]" + b"\x85" * 900_000 + b"."
    keyed = b"\x80\x02})" + b"\x85" * 900_000 + b"Ns."
    cycle = b"\x80\x02]q\x00h\x00a."
    marks = b"\x80\x02" + b"(" * 3_000_000 + b"."
    long = b"\x80\x02X\xff\xff\xff\x7fa."
    huge = b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fa."
    for data in (deep, keyed, cycle, marks, long, huge):
        (tmp_path / "a.pth").write_bytes(data)
        assert str(tmp_path / "a.pth") in fault_of(tmp_path / "a.pth")


@pytest.mark.parametrize("data", [b"", b"\x80", b"<html>not found</html>", b"PK\x03\x04", b"\x1f\x8b\x08\x00junk"])
def test_what_is_no_weights_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    assert str(tmp_path / "a.pth") in fault_of(tmp_path / "a.pth")
    assert "not a file" in fault_of(tmp_path / "none.pth")


def test_a_tar_archive_must_hold_one_torch7_file(tmp_path: Path) -> None:
    for names in ((), ("a.txt",), ("a.t7", "b.t7")):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
            link = tarfile.TarInfo("link.t7")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        assert "expected one" in fault_of(tmp_path / "a.tar.gz")


def test_the_command_reports_what_it_made(ls3dw: Command, fan: FAN, tmp_path: Path) -> None:
    save_archive(fan.state_dict(), tmp_path / "own.pth")
    ended = ls3dw("models", "import", tmp_path / "own.pth", "--kind", "2d")
    assert ended.status == 0, ended.err
    for part in ("stacks 2", "features 16", "pooling avg", sha256_file(tmp_path / "own.pth"), "own.safetensors"):
        assert part in ended.out
    listed = {entry["name"]: entry for entry in json.loads(ls3dw("models", "list", "--json").out)}
    assert listed["own"]["status"] == "imported"
    assert listed["2dfan4"]["status"] == "published"
    assert json.loads(ls3dw("models", "info", "own", "--json").out)["parameters"] > 0
    assert json.loads(ls3dw("models", "info", "2dfan4", "--json").out)["sha256"] == "11f355bf06"
    assert "try --kind 2d or 3d" in ls3dw("models", "import", tmp_path / "own.pth", "--kind", "depth").error
    assert ls3dw("models", "import", tmp_path / "own.pth", "--kind", "4d").status == 2


def test_damaged_files_end_in_an_error() -> None:
    """A small run of tests/fuzz_weights.py."""
    ended = fuzz_weights.run(80, seed=7)
    assert sum(ended.values()) == 80
    assert sum(count for how, count in ended.items() if how.endswith("error")) > 40


@pytest.mark.skipif(not (REAL / "t7").is_dir(), reason="real data is not here")
@pytest.mark.parametrize(("folder", "kind"), [("fan_rgb_s2_f16", "2d"), ("fan_guided71_s2_f16", "2d-to-3d")])
@pytest.mark.parametrize("packed", [False, True])
def test_networks_of_torch7_give_what_torch7_gave(tmp_path: Path, folder: str, kind: Kind, packed: bool) -> None:
    pytest.importorskip("ls3dw.models.weights.torch7")
    path = REAL / "t7" / folder / "model.t7"
    if packed:
        path = tmp_path / "model.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(REAL / "t7" / folder / "model.t7", "folder/model.t7")
    made = take(path, kind)
    assert made.contract.network["pooling"] == "max"
    arrays = {array.stem: torch.from_numpy(np.load(array)) for array in (REAL / "t7" / folder).glob("*.npy")}
    with torch.inference_mode():
        outputs = load("model", (kind,)).network(arrays["in64_input"].float())
    for number, output in enumerate(outputs, 1):
        assert (output - arrays[f"in64_out{number}"]).abs().max() < 1e-4


def test_a_safetensors_header_of_impossible_size_is_refused(tmp_path: Path) -> None:
    header = b'{"a":0}'.ljust(5 << 20)
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match="a safetensors header of 5242880 bytes, expected at most 4194304"):
        read_weights(tmp_path / "a.safetensors")
