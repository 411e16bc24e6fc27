"""Reads and writes files: videos, images, masks, pages, and the folders of long runs.

Paths and arrays go in; `Video`s and arrays come out, or files that are complete or absent. Read
`video` and `masks` first: they are what other rooms call.

Reading a clip: `paths` (expands `~`, copies pipes), `images` and `image_sequences` (image files,
folders and patterns of them), `probe` (properties of a video file and times of its frames),
`decode` (its pixels), `scaling` (the size of the edit), `read_clip` (all of these in order) and
`frame_buffer` (holds the frames of a long clip). Writing one: `encode`, with `sound`.

imageio reads the pixels of videos (its pyav plugin) and reads and writes images (its pillow
plugin). PyAV is called directly for what imageio cannot do: `probe` reads timestamps and
properties of a stream, `sound` copies audio packets, and `encode` sets timestamps, the quality and
colour tags of h264, and one palette for a gif.

Other programs pass batches of floats: `image_batches`.

For lists and the command line: `entries` (the entries of a CSV, JSONL, YAML or JSON file) and
`values` (what text stands for). For what people look at: `panels` and `html`. For folders: `atomic`
(writes files and folders completely or not at all), `fingerprint` (answers whether two runs do the
same work) and `resumable` (keeps the finished pieces of a long run).
"""
