"""Makes the files beside it: `pip install pyarrow==26.0.1 fastparquet==2026.9.0`, then `python make.py`."""

import datetime as dt
import decimal

import fastparquet
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

ZONE = dt.timezone.utc
rows = {
    "device": pa.array(["a", "b", None]),
    "high": pa.array([80.5, None, -1e9], pa.float64()),
    "single": pa.array([0.5, 1.5, None], pa.float32()),
    "price": pa.array([decimal.Decimal("12.34"), None, decimal.Decimal("-0.05")], pa.decimal128(9, 2)),
    "count": pa.array([7, -8, None], pa.int16()),
    "large": pa.array([2**62, None, 0], pa.uint64()),
    "on_site": pa.array([True, False, None]),
    "area": pa.array(["north", "north", "south"]).dictionary_encode(),
    "since": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 678000, ZONE), None, dt.datetime(1969, 12, 31, 23, 59, 59, 0, ZONE)], pa.timestamp("us", "UTC")),
    "local": pa.array([dt.datetime(2026, 1, 2), None, None], pa.timestamp("ns")),
    "day": pa.array([dt.date(2026, 1, 2), None, dt.date(1969, 12, 31)]),
    "nothing": pa.array([None, None, None], pa.null()),
}
table = pa.table(rows)
for codec in ["snappy", "gzip", "zstd", "brotli", "none"]:
    pq.write_table(table, f"{codec}.parquet", compression=codec, row_group_size=2)
# Other encodings and pages, and the times of old Spark.
pq.write_table(
    table.drop_columns(["nothing"]), "old.parquet", version="1.0", data_page_version="2.0", use_dictionary=False, use_deprecated_int96_timestamps=True,
    column_encoding={"device": "DELTA_BYTE_ARRAY", "count": "DELTA_BINARY_PACKED", "high": "BYTE_STREAM_SPLIT"},
)
pq.write_table(pa.table({"device": ["a"], "raw": [b"\x00"], "list": [[1, 2]], "point": [{"x": 1}]}), "nested.parquet")
pq.write_table(pa.table({"large": pa.array([2**63], pa.uint64())}), "too_large_number.parquet")
# A mebibyte of text in 3000 rows, and rows that are only a count.
pq.write_table(pa.table({"text": pa.array(["x" * (1 << 20)] * 3000).dictionary_encode()}), "one_text.parquet", compression="zstd")
pq.write_table(pa.table({"n": pa.array([None] * 3_000_000, pa.int64())}), "no_values.parquet", compression="zstd")
# A page that is large when it is unpacked.
pq.write_table(pa.table({"text": ["y" * (8 << 20)]}), "one_page.parquet", compression="zstd", use_dictionary=False)
frame = pandas.DataFrame({"device": ["a", "b"], "high": [80.5, 90.5], "count": [1, 2]})
fastparquet.write("fastparquet.parquet", frame, compression="SNAPPY")
