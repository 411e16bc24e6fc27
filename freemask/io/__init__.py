"""Reads and writes files: videos, images, masks, pages, and the folders of long runs.

Paths and arrays go in; `Video`s and arrays come out, or files that are complete or absent. Read
`images`, `frame_buffer` (holds the frames of a long clip), `video` and `masks` for what users give;
`panels` and `html` for what they look at; `atomic` (writes files and folders completely or not at
all), `fingerprint` (answers whether two runs do the same work) and `resumable` (keeps the finished
pieces of a long run).
"""
