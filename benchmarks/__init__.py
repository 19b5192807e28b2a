"""Measurements of easyclf against its rivals, as anybody can rerun them."""
