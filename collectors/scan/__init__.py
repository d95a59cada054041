"""Many messages decoded at once, compiled; `frames.py` says how.

What is here never changes what is decoded, only how fast: a message that it does not know to the
last byte is left to the adapter's own decoding.
"""
