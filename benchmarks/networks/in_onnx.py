"""The networks in ONNX Runtime: PyTorch's, exported."""

import io
import os
import warnings

import onnxruntime
import torch

from . import in_torch


class Prediction:
    """The logits of one batch, as often as they are asked for."""

    def __init__(self, work, params, x):
        network = in_torch.load(work, params, "contiguous").eval()
        self.x = in_torch.images(x, "contiguous").numpy()
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that does without onnxscript is deprecated
            torch.onnx.export(network, (torch.from_numpy(self.x),), file, input_names=["x"], dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])

    def __call__(self):
        return self.session.run(None, {"x": self.x})[0]

    def logits(self):
        """The same, with channels last."""
        y = self()
        return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y
