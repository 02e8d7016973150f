"""The engine: kernels in a small loop language, compiled for this machine, and the workers that run them."""
