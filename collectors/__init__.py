"""From exchanges to canonical Arrow batches: adapters, raw recordings, sinks.

An adapter (`adapter.py`) turns received bytes into events, builders (`schema.py`) turn events into
canonical batches, sinks keep them. `replay.replay` drives the three over a raw recording.
"""
