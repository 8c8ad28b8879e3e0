"""Not the product: phantoms with known truth, what they teach, the demo models' training."""
