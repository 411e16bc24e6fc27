"""Development tools of the kernels; of the shipped rooms only profiling and cli import them.

Read `testing` first: random samples and the error budget of every backend. `interpreter` runs the
Triton kernels on a CPU. `cost` computes the least work and time of a blend, `timing` measures time
and memory of calls, and `benchmark` compares the kernels with their baselines and writes the
tables and charts of `tables`. `inspect` reads the machine code of the Triton kernels without a GPU,
`tune` times tiles on one, and `tile_checks` runs the shipped ones there.
"""
