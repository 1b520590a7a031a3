"""A run: it learns, goes on exactly where it was killed, and what it exports is used like any other network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import ALONE, CPU, NETWORKS, losses, open_dots, options, train

from ls3dw.errors import ConfigurationError, ModelError, TrainingError
from ls3dw.models.annotator import Annotator
from ls3dw.models.networks.heatmaps import decode_subpixel
from ls3dw.models.weights.zoo import load
from ls3dw.training import run
from ls3dw.training.export import export
from ls3dw.training.loop import checkpoint
from ls3dw.training.loop.trainer import Trainer
from ls3dw.training.options import config_hash
from ls3dw.training.run import prepare_folder


@pytest.mark.parametrize(
    "optimizer", ["adamw", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rmsprop", "sgd"))]
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, optimizer: str) -> None:
    settings = {"kind": optimizer, "rate": 1e-3, "momentum": 0.9 * (optimizer == "sgd"), "warm_up": 2}
    networks = {"flat": NETWORKS["flat"]} | ({"z": NETWORKS["depth"]} if optimizer == "adamw" else {})
    chosen = options(steps=8, batch=2, ema=0.9, freeze_norms=0.5, optimizer=settings, networks=networks)
    whole = train(chosen, tmp_path / "whole")
    train(chosen, tmp_path / "killed", until=5)
    assert checkpoint.newest(tmp_path / "killed").step == 3  # type: ignore[union-attr]
    resumed = train(chosen, tmp_path / "killed")
    assert resumed.taken == 8
    again = resumed.tensors()
    for name, value in whole.tensors().items():
        assert torch.equal(value, again[name]), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    assert [line["step"] for line in losses(tmp_path / "whole")] == [2, 4, 6, 8]


def test_one_call_trains_exports_stops_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "open_renderer", open_dots)
    chosen = options(steps=3, validation={"every": 0, "rendered": 2})
    plan = run.plan_training(chosen, out=tmp_path)
    assert (plan.counts, plan.faces, plan.length.steps, plan.folder) == ([4], {}, 3, tmp_path)
    assert not list(tmp_path.iterdir())
    steps = iter((False, True))
    half = run.run_training(chosen, out=tmp_path, gpu="none", stop=lambda: next(steps))
    assert (half.stopped, half.steps, half.models) == (True, 2, {})
    whole = run.run_training(chosen, out=tmp_path, gpu="none", resume=True)
    assert (whole.stopped, whole.steps, whole.folder) == (False, 3, tmp_path)
    assert whole.results.keys() == {"heads/flat"}
    assert whole.models == {"flat": tmp_path / "models" / "flat.safetensors"}
    assert whole.models["flat"].is_file()


def test_batch_norms_freeze(tmp_path: Path) -> None:
    frozen, free = (train(options(steps=6, ema=0.9, freeze_norms=share), tmp_path / str(share)) for share in (0.5, 0))
    for trainer, same in ((frozen, True), (free, False)):
        network, average = trainer.networks["flat"].network, trainer.averages["flat"].network
        statistics = [name for name, _ in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
        assert statistics
        for name in statistics:
            assert torch.equal(network.get_buffer(name), average.get_buffer(name)) == same, name
    network, average = frozen.networks["flat"].network, frozen.averages["flat"].network
    assert {int(value) for name, value in network.named_buffers() if name.endswith("tracked")} == {3}
    # Its weights go on changing.
    assert not torch.equal(network.get_parameter("conv1.weight"), average.get_parameter("conv1.weight"))


def test_the_last_checkpoints_are_kept_and_the_last_is_the_end(tmp_path: Path) -> None:
    train(options(steps=7), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step-*.json")) == ["step-000000006.json", "step-000000007.json"]
    assert len(list(tmp_path.glob("step-*.safetensors"))) == 2
    again = train(options(steps=7), tmp_path)
    assert again.taken == 7


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    train(options(), tmp_path)
    other = options(seed=1)
    with pytest.raises(ConfigurationError, match="another configuration"), prepare_folder(tmp_path, other, ALONE):
        pass
    with pytest.raises(ConfigurationError, match="another configuration"):
        train(other, tmp_path)
    with prepare_folder(tmp_path, other, ALONE, restart=True):
        assert checkpoint.newest(tmp_path) is None
    with pytest.raises(ConfigurationError, match="no checkpoint"), prepare_folder(tmp_path, other, ALONE, resume=True):
        pass
    # Where and how often a run is looked at does not change its weights.
    looked_at = options(validation={"every": 2}, checkpoint={"every": 1})
    assert config_hash(looked_at) == config_hash(options())


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    train(options(steps=3), tmp_path)
    path = tmp_path / "step-000000003.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        train(options(steps=3), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    wild = options(optimizer={"kind": "sgd", "rate": 1e30})
    with pytest.raises(TrainingError, match="not finite"):
        train(wild, tmp_path)


def test_every_kind_of_network_is_trained_validated_exported_and_annotates(tmp_path: Path) -> None:
    chosen = options(steps=2, networks=NETWORKS, validation={"every": 0, "rendered": 5})
    trainer = train(chosen, tmp_path)
    guided = {f"heads/guided/{guidance}" for guidance in ("exact", "off", "chain")}
    assert trainer.results.keys() == {"heads/flat", "heads/solid", "heads/depth"} | guided
    assert trainer.results["heads/flat"]["faces"] == 5
    contracts = export(trainer.averages, tmp_path / "models", chosen, trainer.taken, trainer.results)
    assert contracts["flat"].licence == "MIT"
    assert contracts["guided"].figures.keys() == {"heads/exact", "heads/off", "heads/chain"}
    models = {name: tmp_path / "models" / f"{name}.safetensors" for name in NETWORKS}
    annotator = Annotator(models["flat"], models["guided"], models["depth"])
    picture = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    assert annotator.annotate([picture], [[20, 20, 70, 70]]).landmarks_3d.shape == (1, 68, 3)
    assert "## Limits" in (tmp_path / "models" / "depth.md").read_text()


def test_exported_depth_is_in_pixels_and_training_can_start_from_it(tmp_path: Path) -> None:
    chosen = options(steps=1, ema=0.5, networks={"z": NETWORKS["depth"]})
    trainer = train(chosen, tmp_path / "first")
    export(trainer.averages, tmp_path, chosen, 1, {})
    model = load(tmp_path / "z.safetensors", ("depth",))
    trained = trainer.averages["z"].network
    crop = torch.rand(1, 71, 256, 256)
    with torch.no_grad():
        inner, exported = trained(crop) * 32, model.network(crop)
    assert exported == pytest.approx(inner, rel=2e-2, abs=2e-2)
    further = {"z": {**NETWORKS["depth"], "init": str(tmp_path / "z.safetensors")}}
    started = Trainer(options(networks=further), tmp_path / "second", ALONE, open_dots)
    with torch.no_grad():
        assert started.averages["z"].network(crop) * 32 == pytest.approx(exported, abs=1e-4)
    again = export(started.averages, tmp_path / "again", started.options, 1, {})
    assert again["z"].licence == "MIT", "weights that come from heads alone stay free"


def test_weights_of_another_kind_or_shape_are_refused(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    wide = {"class": "FAN", "stacks": 1, "features": 32}
    networks = {
        "kind": {**NETWORKS["flat"], "init": tiny_models["3d"]},
        "shape": {"kind": "2d", "network": wide, "init": tiny_models["2d"]},
        "words": {"kind": "2d", "network": {"class": "FAN", "stack": 2}},
    }
    with pytest.raises(ConfigurationError) as caught:
        Trainer(options(networks=networks), tmp_path, ALONE, open_dots)
    for part in ("networks.kind", "networks.shape", "networks.words", "'stack'"):
        assert part in str(caught.value)


def test_predictions_guide_their_share_of_the_faces(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    guidance = {"model": tiny_models["2d"], "predicted": 0.5}
    chosen = options(batch=8, networks={"guided": NETWORKS["guided"], "z": NETWORKS["depth"]}, guidance=guidance)
    feed = Trainer(chosen, tmp_path / "half", ALONE, open_dots).feed
    plain = options(batch=8, networks={"guided": NETWORKS["guided"], "z": NETWORKS["depth"]})
    without = Trainer(plain, tmp_path / "none", ALONE, open_dots).feed
    inputs, others = feed.inputs(0), without.inputs(0)
    assert torch.equal(inputs.guides["z"], others.guides["z"])
    with torch.no_grad():
        predicted = decode_subpixel(load(tiny_models["2d"]).network(inputs.images)[-1])[0]
    by_model = (inputs.guides["guided"] == predicted).all(dim=(1, 2))
    by_truth = (inputs.guides["guided"] == others.guides["guided"]).all(dim=(1, 2))
    assert (by_model ^ by_truth).all()
    assert 0 < by_model.sum() < 8
    assert torch.equal(feed.inputs(0).guides["guided"], inputs.guides["guided"])


def test_the_network_that_guides_begins_the_chain(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    guidance = {"model": tiny_models["2d"], "predicted": 1.0}
    chosen = options(
        steps=1, networks={"guided": NETWORKS["guided"]}, guidance=guidance, validation={"every": 0, "rendered": 3}
    )
    trainer = train(chosen, tmp_path)
    assert trainer.results.keys() == {f"heads/guided/{points}" for points in ("exact", "off", "chain")}
    exported = export(trainer.averages, tmp_path / "models", chosen, 1, trainer.results)
    assert exported["guided"].licence != "MIT", "the guide's own licence is not known"
    with pytest.raises(ConfigurationError, match=r"guidance.model: .*nobody"):
        Trainer(
            options(networks={"guided": NETWORKS["guided"]}, guidance={**guidance, "model": "nobody"}),
            tmp_path,
            ALONE,
            open_dots,
        )


@pytest.mark.slow
def test_a_small_network_learns_a_few_faces_by_heart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    chosen = options(
        steps=100,
        batch=2,
        log=50,
        augment={"flip": 0.0},
        data=[{"stream": "heads", "pool": 2, "chunk": 2, "start": 2, "every": 10**6}],
        networks={"flat": {"kind": "2d", "network": {"class": "FAN", "stacks": 1, "features": 32}}},
        optimizer={"rate": 5e-3, "clip": 1.0},
        targets={"std": 1.2, "weight": 10},
        checkpoint={"every": 1000},
    )
    trainer = train(chosen, tmp_path)
    curve = [line["flat"] for line in losses(tmp_path)]
    assert curve[-1] < 0.25 * curve[0]
    inputs = trainer.feed.inputs(0)
    from ls3dw.models.networks.heatmaps import decode_subpixel

    with torch.no_grad():
        points = decode_subpixel(trainer.averages["flat"].network(inputs.images)[-1])[0]
    assert (points - inputs.landmarks_2d).norm(dim=2).median() < 4
    assert inputs.images.device == CPU
