"""What all measurements share: blocks, components, surfaces, sparse objects, the coarse grid."""
