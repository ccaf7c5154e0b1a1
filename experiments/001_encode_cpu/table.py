"""Prints the newest result of results.jsonl as the table of the README."""

from __future__ import annotations

import json
from pathlib import Path

rows = (Path(__file__).parent / "results.jsonl").read_text().splitlines()
result = json.loads(rows[-1])
facts = f"{result['device']}, {result['threads']} threads, {result['rounds']} rounds"
print(f"{facts}, {result['date']}\n")
print(
    "| | queries/s | passages/s | one query, ms | lowest cosine to float32 |\n|---|---|---|---|---|"
)
for name, latency in result["query_ms"].items():
    speed = [result["texts_per_s"][what][name] for what in ("queries", "passages")]
    cosine = result["lowest_cosine_to_float32"][name]
    print(f"| {name} | {speed[0]:.0f} | {speed[1]:.0f} | {latency:.1f} | {cosine:.5f} |")
print("\n| ratio | queries | passages | one query |\n|---|---|---|---|")
for pair in result["speedup"]["queries"]:
    values = [result["speedup"][what][pair] for what in ("queries", "passages", "query")]
    print(f"| {pair} | " + " | ".join(f"{value:.2f}x" for value in values) + " |")
cold = result["search_cold_start_s"]
print(
    f"\nCold start of `nvembed search`: {cold['with_cache']:.2f} s with the compilation cache, "
    f"{cold['without_cache']:.2f} s without."
)
