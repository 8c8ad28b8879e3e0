"""Exploring a study without code: who scores how, against what, and the scans behind it."""

from helpers.explore.widget import explore_study

__all__ = ["explore_study"]
