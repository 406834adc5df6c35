"""The smallest honest MLModel over ONNX Runtime: one session, one thread, no batching."""

from pathlib import Path

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """Answers V2 calls from one ONNX file."""

    async def load(self) -> bool:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = Path(self.settings.parameters.uri)
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Decode, run, encode."""
        inputs = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        answers = self._session.run(self._names, inputs)
        outputs = [
            NumpyCodec.encode_output(name, answer)
            for name, answer in zip(self._names, answers, strict=True)
        ]
        return InferenceResponse(
            id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs
        )
