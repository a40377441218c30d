"""Run every benchmark and print one markdown row for each figure."""

from benchmarks import (
    blend_memory,
    blend_quality,
    blend_speed,
    cache_reads,
    context_pays,
    ingest,
    prepare_memory,
    rung_truth,
    search_economics,
    search_overhead,
    search_scale,
    techniques,
    training_speed,
)

BENCHMARKS = (
    ingest,
    cache_reads,
    prepare_memory,
    training_speed,
    techniques,
    rung_truth,
    search_economics,
    search_overhead,
    search_scale,
    context_pays,
    blend_quality,
    blend_speed,
    blend_memory,
)


def main() -> None:
    print("| claim | figure | how |")
    print("|---|---|---|")
    for benchmark in BENCHMARKS:
        for claim, figure, how in benchmark.measure():
            print(f"| {claim} | {figure} | {how} |")


if __name__ == "__main__":
    main()
