"""Whole numbers ↔ bits: coders of fields. Imports no model."""
