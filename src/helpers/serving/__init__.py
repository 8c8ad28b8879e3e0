"""A study in the browser: its notebooks in JupyterLab; its people and scans without notebooks."""

from helpers.serving.copies import fill_notebooks
from helpers.serving.lab import start_lab
from helpers.serving.page import show_page
