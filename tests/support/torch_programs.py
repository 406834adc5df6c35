"""Run by the environment that has torch: makes two programs, inputs, and torch's own answers."""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch

ROWS = (1, 3, 64)


class Digits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(64, 32)
        self.second = torch.nn.Linear(32, 10)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shares = torch.softmax(self.second(torch.relu(self.first(pixels))), -1)
        return shares.argmax(-1), shares


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(11)
    torch.set_num_threads(1)
    model, example = Digits().eval(), torch.zeros(2, 64)
    rows = {"pixels": {0: torch.export.Dim("rows", min=1, max=4096)}}
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=rows), folder / "m.pt2")
    torch.jit.script(model).save(str(folder / "script.pt"))
    torch.jit.trace(model, example).save(str(folder / "traced.pt"))
    kept = {}
    for many in ROWS:
        pixels = torch.randn(many, 64)
        with torch.inference_mode():
            labels, shares = model(pixels)
        kept |= {f"x{many}": pixels, f"labels{many}": labels, f"shares{many}": shares}
    np.savez(folder / "said.npz", **{name: each.numpy() for name, each in kept.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
