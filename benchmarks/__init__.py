"""Speed and memory against peers, measured by hand: `python -m benchmarks.step_time`, `.memory`, `.scaling`. Not installed, not tests.

Each prints what it measured and writes it to benchmarks/results/ as JSON and Markdown. What is guarded on every push are counts, not times:
tests/test_benchmark_counts.py.
"""
