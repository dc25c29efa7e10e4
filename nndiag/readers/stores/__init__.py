"""Metrics kept one by one: MLflow, Trackio, DVCLive."""
