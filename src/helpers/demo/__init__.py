"""The demo world: torso phantoms with known truth, what they teach, and the training of `sam_demo`. Not the product."""
