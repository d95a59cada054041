"""A simulated exchange: `gpukern simulate`, and what tests and the demo collect from."""
