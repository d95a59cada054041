"""From exchanges to canonical Arrow batches: adapters, integrity, raw recordings, sinks.

An adapter (`adapter.py`) turns received bytes into events, `integrity.py` finds what is missing,
double or wrong among them, builders (`schema.py`) turn events into canonical batches, sinks keep
them. `replay.replay` drives them over a raw recording.
"""
