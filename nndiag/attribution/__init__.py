"""What a model looked at: Captum's attributions of a captured batch. The one place for captum.

    captured -> model_call -> features, objective -> methods -> attribute -> results

A captured batch (see docs/attribution.md) holds tensors and JSON, never code, and nothing is
unpickled. The model itself comes from the process that this runs in: the training after its last
step, or the user's own script, run again up to its first forward pass.
"""
