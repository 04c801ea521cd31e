"""Supervised learning from parameter servers, on real data that needs no download."""
