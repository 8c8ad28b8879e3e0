"""How `sam_demo` was made: synthetic slices, torsos drawn for them, and the training itself."""
