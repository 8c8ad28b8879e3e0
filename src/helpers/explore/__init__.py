"""Exploring a study without code: who scores how, against what, and the scans behind it."""

from helpers.explore.explorer import Explorer, PeopleView, list_studies
from helpers.explore.export import export_view
from helpers.explore.widget import ExplorerWidget, explore_study

__all__ = ["Explorer", "ExplorerWidget", "PeopleView", "explore_study", "export_view", "list_studies"]
