"""Tables and meshes to plotly figures: no files, no statistics, no dropped rows."""
