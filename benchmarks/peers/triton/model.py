"""An ONNX model behind Triton's Python backend: calls that came together are run as one batch."""

import json
import sys
from pathlib import Path
from typing import Any

# The backend's process takes no search path from outside; the benchmark puts a link beside us.
sys.path.insert(0, str(Path(__file__).parent / "site-packages"))

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What Triton's backend looks for by this name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session: one thread, as the other servers have."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        config = json.loads(args["model_config"])
        self._input = config["input"][0]["name"]
        self._outputs = [each["name"] for each in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Join, run, split."""
        arrays = [
            triton.get_input_tensor_by_name(each, self._input).as_numpy() for each in requests
        ]
        joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        answers = self._session.run(self._outputs, {self._input: joined})
        responses, start = [], 0
        for array in arrays:
            stop = start + len(array)
            tensors = [
                triton.Tensor(name, answer[start:stop])
                for name, answer in zip(self._outputs, answers, strict=True)
            ]
            responses.append(triton.InferenceResponse(output_tensors=tensors))
            start = stop
        return responses
