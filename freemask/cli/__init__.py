"""The command line, `freemask COMMAND`: each command makes a request and calls one function.

Words of the command line go in; files come out, with a few lines on the terminal. Read `commands`
first, then `edit_commands`, `machine_commands` and `study_commands`. `arguments` makes options from
request dataclasses; `progress` prints results and progress bars; `interrupts` says what an
interrupted command leaves behind.
"""
