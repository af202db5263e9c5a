"""What all measurements share: blocks, surfaces, sparse objects, the coarse grid, columns."""
