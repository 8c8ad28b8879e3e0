"""What things are called and how numbers are written: measures, statuses, verdicts, words.

The bottom room: tables, figures, sentences and notebooks all take their names from here.
"""
