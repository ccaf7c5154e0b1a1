"""Prints results.json, clients.json and fuzz.json as the tables of the README."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent


def load_table() -> None:
    """Load and throughput."""
    found = json.loads((HERE / "results.json").read_text("utf8"))
    where = found["machine"]
    print(
        f"{where['cpu']}, {where['threads']} threads, {found['date']}; {found['seconds']:g} s a row"
    )
    print("\n| server | load | offered/s | answered/s | p50 ms | p99 ms | 429 | wrong | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    for server, phases in found["servers"].items():
        for name, row in phases.items():
            if name == "bulk":
                continue
            refused = row["statuses"].get("429", 0)
            offered = row.get("rate", "")
            print(
                f"| {server} | {name} | {offered} | {row['requests_per_s']} | {row['p50_ms']} | "
                f"{row['p99_ms']} | {refused} | {row['wrong']} | {row['lost']} |"
            )
    print(f"\n| texts/s with 32 a request | |\n|---|---|\n| offline, in one process | "
          f"{found['offline_texts_per_s']:.0f} |")  # fmt: skip
    for server, phases in found["servers"].items():
        print(f"| {server}, client included | {phases['bulk']['texts_per_s']:.0f} |")
    print("\n| ratio | |\n|---|---|")
    for name, value in found["conclusions"].items():
        print(f"| {name.replace('_', ' ')} | {value} |")


def clients_table() -> None:
    """Clients: what was run, and what was seen."""
    found = json.loads((HERE / "clients.json").read_text("utf8"))
    print("\n| client | check | | seen |\n|---|---|---|---|")
    for client in found["clients"]:
        for check in client["checks"]:
            mark = {True: "yes", False: "**no**", None: "not run"}[check["ok"]]
            seen = check["seen"].replace("|", "\\|").replace("\n", " ")[:160]
            print(
                f"| {client['client']} {client['version']} | {check['check']} | {mark} | {seen} |"
            )


def fuzz_table() -> None:
    """What odd requests were answered with."""
    found = json.loads((HERE / "fuzz.json").read_text("utf8"))
    print("\n| | |\n|---|---|")
    for part in ("bodies", "slow", "schemathesis"):
        for name, value in found.get(part, {}).items():
            if name not in ("memory_mib", "tail"):
                print(f"| {part}: {name.replace('_', ' ')} | {value} |")


def main() -> None:
    for name, show in (
        ("results", load_table), ("clients", clients_table), ("fuzz", fuzz_table)
    ):  # fmt: skip
        if (HERE / f"{name}.json").is_file():
            show()


if __name__ == "__main__":
    main()
