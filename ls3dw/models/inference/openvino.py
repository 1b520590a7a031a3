"""Runs folded networks on a CPU by OpenVINO, with no Python between the layers: lanes do not wait for its lock."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ls3dw.models.inference.core_threads import through_lanes
from ls3dw.models.inference.first_conv import First
from ls3dw.models.inference.folding import Folded, folded
from ls3dw.models.inference.policy import Policy
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.guidance import Guide
from ls3dw.models.networks.heatmaps import with_mirrored
from ls3dw.models.weights.contract import RGB

if TYPE_CHECKING:
    from openvino import CompiledModel


class OpenVinoRunner:
    """Runs a FAN or a depth network. The first convolution is torch's, for the sake of the guide."""

    def __init__(self, network: FAN | DepthNet, policy: Policy) -> None:
        self._policy = policy
        made = folded(network, torch.float32)
        self._first = First(made.first, replace(policy, dtype=torch.float32))
        self._compiled = compile_body(made, self._first(torch.zeros(1, RGB, 256, 256), None), policy)
        self._of_lane = threading.local()

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        if flip:
            return with_mirrored(self, crops)

        # Ahead of the lanes, where torch's operations would wait for Python's lock; one by one, so that a face's maps
        # do not depend on its company.
        rows = [slice(number, number + 1) for number in range(len(crops))]
        maps = [self._first(crops[row], None if guide is None else guide[row]).contiguous().numpy() for row in rows]

        def run(row: slice) -> Tensor:
            return torch.from_numpy(self._request().infer([maps[row.start]], share_inputs=True)[0])

        return through_lanes(run, len(crops), 1, self._policy.lanes)

    def _request(self) -> Any:
        """Return what holds one lane's maps."""
        if not hasattr(self._of_lane, "request"):
            self._of_lane.request = self._compiled.create_infer_request()
        return self._of_lane.request


class Body(nn.Module):
    """A folded network from the result of its first convolution on, which it leaves as it is."""

    def __init__(self, network: Folded) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor) -> Tensor:
        return self.network.body(maps.clone())


def compile_body(network: Folded, maps: Tensor, policy: Policy) -> CompiledModel:
    """Compile a network for maps (1, C, 128, 128) that its first convolution gives, with a stream of cores a lane.

    By way of the frontend: `openvino.convert_model` does the same, but may report its use over the network.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        # It traces, which torch would like everybody to leave.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = TorchScriptPythonDecoder(Body(network).eval(), example_input=(maps.contiguous(),))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(traced))
    model.reshape(list(maps.shape))
    settings = {
        "NUM_STREAMS": policy.lanes,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if policy.dtype == torch.bfloat16 else "f32",
        # Other processes want the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(model, "CPU", settings)
