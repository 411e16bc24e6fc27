"""Settings of an edit: typed, with presets by task and method, each checked as it is made.

`sections` defines the settings, and `presets` loads them from the configs.
"""
