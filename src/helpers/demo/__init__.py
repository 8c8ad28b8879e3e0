"""Not the product: phantoms with known truth, what they teach, the training of `sam_demo`."""
