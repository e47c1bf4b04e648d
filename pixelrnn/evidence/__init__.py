"""Results and their bounds; stored loss curves and benchmarks."""
