"""Training of the networks: pipelines, streams of data, the loop, checkpoints, validation, export."""
