"""Make the files of this folder by the libraries that own the formats.

Run it in an environment of its own (it needs torch and safetensors; the versions that made the
present files stand in README.md):

    python tests/vectors/plain_tensors/make.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent

torch.manual_seed(11)
base, tied = torch.randn(6, 4), torch.randn(5, 3)
state = {
    "layer.weight": torch.randn(3, 4),
    "layer.bias": torch.randn(3).bfloat16(),
    "half": torch.randn(2, 2).half(),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False, True]),
    "empty": torch.empty(0, 4),
    "tied.in": tied,
    "tied.out": tied,
    "slice.first": base[:2],
    "slice.rest": base[2:],
    "column": torch.randn(4, 1).t(),
    "parameter": torch.nn.Parameter(torch.randn(2, 3)),
}
torch.save(state, HERE / "views.pt")
save_file({name: each.detach().clone() for name, each in state.items()}, HERE / "views.safetensors")
for name, odd in {
    "turned": torch.randn(3, 2).t(),
    "strided": torch.randn(6)[::2],
    "quantised": torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8),
    "complex": torch.randn(2, dtype=torch.complex64),
}.items():
    torch.save({"good": torch.ones(2), "odd": odd}, HERE / f"{name}.pt")
