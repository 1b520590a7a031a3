"""Runs folded networks on a CPU by OpenVINO: no Python between the layers, so threads do not wait for its lock."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ls3dw.models.inference.core_threads import run_in_parts
from ls3dw.models.inference.first_conv import FirstConv
from ls3dw.models.inference.folding import Folded, fold_network
from ls3dw.models.inference.policy import Policy
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.guidance import Guide
from ls3dw.models.networks.heatmaps import with_mirrored
from ls3dw.models.weights.contract import RGB

if TYPE_CHECKING:
    from openvino import CompiledModel


class OpenVinoRunner:
    """Runs a FAN or a depth network. The first convolution is torch's, because of the guide."""

    def __init__(self, network: FAN | DepthNet, policy: Policy) -> None:
        self._policy = policy
        made = fold_network(network, torch.float32)
        self._first = FirstConv(made.first, replace(policy, dtype=torch.float32))
        self._compiled = compile_body(made, self._first(torch.zeros(1, RGB, 256, 256), None), policy)
        self._of_thread = threading.local()

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        if flip:
            return with_mirrored(self, crops)

        # Before the threads start, in which torch's operations would wait for Python's lock; one by one, so that the
        # other faces change no bit.
        rows = [slice(number, number + 1) for number in range(len(crops))]
        maps = [self._first(crops[row], None if guide is None else guide[row]).contiguous().numpy() for row in rows]

        def run(row: slice) -> Tensor:
            return torch.from_numpy(self._request().infer([maps[row.start]], share_inputs=True)[0])

        return run_in_parts(run, len(crops), 1, self._policy.threads)

    def _request(self) -> Any:
        """Return this thread's request, which holds its maps."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        return self._of_thread.request


class Body(nn.Module):
    """A folded network after its first convolution; it leaves its input unchanged."""

    def __init__(self, network: Folded) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor) -> Tensor:
        return self.network.body(maps.clone())


def compile_body(network: Folded, maps: Tensor, policy: Policy) -> CompiledModel:
    """Compile a network for first-convolution results (1, C, 128, 128), with one stream a thread.

    Through the frontend: `openvino.convert_model` may report its use over the network.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        # Torch deprecates tracing.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = TorchScriptPythonDecoder(Body(network).eval(), example_input=(maps.contiguous(),))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(traced))
    model.reshape(list(maps.shape))
    settings = {
        "NUM_STREAMS": policy.threads,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if policy.dtype == torch.bfloat16 else "f32",
        # Other processes use the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(model, "CPU", settings)
