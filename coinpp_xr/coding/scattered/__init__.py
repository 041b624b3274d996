"""Cells anywhere on the sphere: in which order they are coded, and what foretells each of them.

Knows places and whole numbers; nothing of fields, payloads or coders.
"""
