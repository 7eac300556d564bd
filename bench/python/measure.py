"""Measures the Python package: its loop beside the original's, and what the binding costs.

    target/test-venv/bin/python bench/python/measure.py

Needs the wheel in target/wheels (packaging/build-wheel) and PostgreSQL's server. Installs the original from PyPI into
target/original-venv and the wheel into target/bench-venv. Runs are interleaved, and medians are shown.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests"))

from postgres import Cluster  # noqa: E402

ROUNDS = 5
# Transactions in a block, difficulty, seconds a round, and how many times the original's rate is asked for.
POINTS = [(2, 2, 3, 100), (100, 2, 5, 30), (2, 4, 20, 100)]


def venv(name, *packages):
    """Returns the interpreter of an environment that has these packages."""
    folder = ROOT / "target" / name
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(command, check=True)
    return python


def run(*command, **settings):
    """Runs a program that prints a rate. Returns that."""
    # The original writes a log of everything into the working directory, unless it is told not to.
    environment = {"PATH": os.environ["PATH"], "LOG_LEVEL": "ERROR", **settings}
    with tempfile.TemporaryDirectory() as folder:
        command = list(map(str, command))
        done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def children_cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def beside_the_original(original, ours, cluster):
    print("## The same loop of `add_transaction`: the original on PostgreSQL, ours on SQLite and on PostgreSQL\n")
    print(f"Transactions a second, median of {ROUNDS} interleaved rounds (least to most).\n")
    print("| a block of | difficulty | original | ours | times | `KEEP_PENDING=false` | times | bar | | PostgreSQL | times |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|")
    for per_block, difficulty, seconds, bar in POINTS:
        rates = {"original": [], "kept": [], "memory": [], "postgres": []}
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                for name, python, url, settings in [
                    ("original", original, cluster.new_database(), {}),
                    ("kept", ours, f"sqlite:{folder}/kept.db", {}),
                    ("memory", ours, f"sqlite:{folder}/memory.db", {"KEEP_PENDING": "false"}),
                    ("postgres", ours, cluster.new_database(), {}),
                ]:
                    rate = run(python, HERE / "loop.py", url, per_block, difficulty, seconds, **settings)
                    rates[name].append(rate)
        median = {name: statistics.median(values) for name, values in rates.items()}
        shown = {name: f"{median[name]:,.4g} ({min(it):,.4g} to {max(it):,.4g})" for name, it in rates.items()}
        times = {name: median[name] / median["original"] for name in rates}
        verdict = "met" if times["kept"] >= bar else "missed"
        if times["kept"] < bar <= times["memory"]:
            verdict += "; met with `KEEP_PENDING=false`"
        print(
            f"| {per_block} | {difficulty} | {shown['original']} | {shown['kept']} | {times['kept']:.0f} | {shown['memory']} "
            f"| {times['memory']:.0f} | ≥ {bar} | {verdict} | {shown['postgres']} | {times['postgres']:.0f} |",
            flush=True,
        )


def beside_rust(ours):
    rust = ROOT / "target/release/examples/facade"
    subprocess.run(["cargo", "build", "--release", "--package", "liotbchain-bench", "--example", "facade"], cwd=ROOT, check=True)
    print(f"\n## The binding beside the Rust facade: the same texts into SQLite, blocks of 100, median of {ROUNDS}\n")
    print("| a list of | Rust, a second | Python, a second | Rust over Python | processor time, Python over Rust | bar | |")
    print("|---:|---:|---:|---:|---:|---:|---|")
    for size, count in [(1, 10_000), (100, 100_000)]:
        rates, cpu = {"rust": [], "python": []}, {"rust": [], "python": []}
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                for name, program in [("rust", [rust]), ("python", [ours, HERE / "facade.py"])]:
                    before = children_cpu_s()
                    rates[name].append(run(*program, f"sqlite:{folder}/{name}.db", size, count))
                    cpu[name].append(children_cpu_s() - before)
        rust_rate, python_rate = statistics.median(rates["rust"]), statistics.median(rates["python"])
        slower = statistics.median(rust / python for rust, python in zip(rates["rust"], rates["python"]))
        dearer = statistics.median(python / rust for python, rust in zip(cpu["python"], cpu["rust"]))
        verdict = "met" if slower <= 1.3 else "missed"
        print(f"| {size} | {rust_rate:,.0f} | {python_rate:,.0f} | {slower:.2f} | {dearer:.2f} | ≤ 1.3 | {verdict} |", flush=True)


def main():
    wheels = sorted((ROOT / "target/wheels").glob("liotbchain-*.whl"))
    if len(wheels) != 1:
        raise SystemExit("expected one wheel in target/wheels; run: packaging/build-wheel")
    original = venv("original-venv", "--requirement", ROOT / "bench/original/requirements.txt")
    ours = venv("bench-venv", "--force-reinstall", wheels[0])
    cluster = Cluster()
    try:
        cluster.create()
        beside_the_original(original, ours, cluster)
        beside_rust(ours)
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
