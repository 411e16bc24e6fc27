"""The command line, `freemask COMMAND`: each command makes a request and calls one function.

Words of the command line go in; files come out, with a few lines on the terminal. Read `commands`
first, then `edit_commands`, `predict_command`, `machine_commands`, `study_commands` and
`ui_command`. `arguments`
makes options from request dataclasses; `progress` prints results and remarks; `interrupts` says
what an interrupted command leaves behind.
"""
