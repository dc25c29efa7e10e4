"""What the first steps of a training show: checks with a number each, and the findings of a run."""
