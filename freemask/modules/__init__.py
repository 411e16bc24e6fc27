"""Runs everything that needs Lightning: batches on several devices, and training.

A request or a config goes in; files come out. Read `editing` first: it edits the jobs of a list.
`callbacks` saves their results and reports progress, and `trainer` puts config, module and trainer
together for `tools/predict.py`. `calibration` and `evaluation` measure clips on several devices.
`tuning` tunes a UNet on one clip, as `tuning_request` asks. `sprites` holds the losses of the demo
checkpoints, and `muon` an optimiser for them. `interrupts` makes Ctrl-C an ordinary exception, and
`quiet` hides Lightning's advice.
"""
