"""WaveNets beside their peers: ``python -m benchmarks.wavenet``; see ``benchmarks/README.md``."""
