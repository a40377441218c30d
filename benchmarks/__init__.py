"""One script a claim; `make bench` prints the table of docs/benchmarks.md from data made on the spot."""
