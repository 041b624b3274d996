"""One-dimensional cells of unstructured and reduced grids, folded into rows and columns."""
