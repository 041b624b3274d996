"""Whole numbers ↔ bits: coders of fields. Imports what lies below (tables, range coder), no model."""
