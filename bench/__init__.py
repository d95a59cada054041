"""Benchmarks: ``python -m bench features|kernels|stream|cold|memory``, one command each.

Each prints the machine, the sizes, the rival's number measured in the same run and the ratio, and
writes ``bench/results/<name>.json``, from which the README's table of measurements is made.
"""
