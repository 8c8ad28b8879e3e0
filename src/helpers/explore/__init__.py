"""Exploring a study without code: who scores how, against what, and which scans stand behind a cloud of people."""

from helpers.explore.explorer import Explorer, View, list_studies
from helpers.explore.export import export_view
from helpers.explore.widget import ExplorerWidget, explore_study

__all__ = ["Explorer", "ExplorerWidget", "View", "explore_study", "export_view", "list_studies"]
