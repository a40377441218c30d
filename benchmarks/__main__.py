"""Run every benchmark and print one markdown row for each figure."""

from benchmarks import cache_reads, ingest, input_pipeline, prepare_memory

BENCHMARKS = (ingest, cache_reads, prepare_memory, input_pipeline)


def main() -> None:
    print("| claim | figure | how |")
    print("|---|---|---|")
    for benchmark in BENCHMARKS:
        for claim, figure, how in benchmark.measure():
            print(f"| {claim} | {figure} | {how} |")


if __name__ == "__main__":
    main()
