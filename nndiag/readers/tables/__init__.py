"""From named columns of numbers to a `Run`: what is the loss, and when."""
