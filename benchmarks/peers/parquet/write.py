"""Writes a Parquet file, for benchmarks/vault: `write.py FILE MB SEED`."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

GROUP = 100_000
BYTES_A_ROW = 26  # about what a row takes with Snappy and dictionaries


def main() -> None:
    """Columns as a data set of conversations has them: ids, names, numbers, sorted times."""
    path, size_mb, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    random = np.random.Generator(np.random.SFC64(seed))
    rows = size_mb * 1_000_000 // BYTES_A_ROW
    names = np.array([f"user-{number:05d}" for number in range(20_000)])
    kinds = np.array(["question", "answer", "summary", "code", "refusal"])
    writer = None
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        times = 1_763_700_000_000_000 + (start + np.arange(count)) * 40_000
        table = pa.table({
            "time": pa.array(times + random.integers(0, 30_000, count), pa.timestamp("us")),
            "user": names[(random.pareto(1.1, count) * 50).astype(np.int64) % len(names)],
            "kind": kinds[random.choice(len(kinds), count, p=(0.4, 0.35, 0.15, 0.07, 0.03))],
            "tokens": random.poisson(180, count).astype(np.int32),
            "score": random.normal(0.6, 0.15, count).astype(np.float32),
            "embedding_norm": random.gamma(9.0, 1.0, count),
            "is_flagged": random.random(count) < 0.02,
        })  # fmt: skip
        writer = writer or parquet.ParquetWriter(path, table.schema, compression="snappy")
        writer.write_table(table)
    assert writer is not None
    writer.close()


main()
