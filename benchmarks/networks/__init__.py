"""Whole networks beside PyTorch, JAX and ONNX Runtime: time, memory, start and download. See benchmarks/README.md."""
