"""Jobs: a source, a plan of features, a sink. The `gpukern` command is `pipelines.cli`."""
