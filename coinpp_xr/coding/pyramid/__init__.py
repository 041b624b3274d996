"""The pyramid coder: grids from coarse to fine under a bound, each point amid decoded ones.

A coarse lattice of anchors comes first; every level then halves the spacing in three passes. All
points of a pass are predicted from coarser passes and from reference fields alone, so that a pass
is one vector operation with the same integers on any device.
"""
