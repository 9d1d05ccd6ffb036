"""What leaky ReLU costs here and elsewhere: `python -m benchmarks`, or `make bench`."""
