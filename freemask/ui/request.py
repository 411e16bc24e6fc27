"""A page that was asked for: the options of `freemask ui`. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from freemask.types import InputError, at_least

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class UiRequest:
    """A page to serve.

    host: address to listen at; 127.0.0.1 reaches this machine alone.
    port: port to listen at; the first free one from 7860 on if not given.
    auth: USER:PASSWORD that the page asks for.
    share: make a public link through Gradio's servers.
    work: folder of uploads and results; one that is removed at the end if not given.
    runs: folder of results of `freemask predict`, shown under Runs.
    teacher: folder or hub id of a model that follows the object under a stroke, such as
        facebook/sam2.1-hiera-large; without it a stroke follows the motion of the picture.
    upload_mb: largest file that is taken, in megabytes, >= 1.
    most_frames: largest number of frames of an edit, >= 1.
    most_pixels: largest number of pixels of a frame of an edit, >= 1.
    most_minutes: time after which a piece of work is stopped, >= 1.

    Raises `InputError` for numbers out of range, for a user without a password, and for an address
    that others reach or a public link without a user.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth: str | None = None
    share: bool = False
    work: Path | None = None
    runs: Path | None = None
    teacher: str | None = None
    upload_mb: int = 200
    most_frames: int = 121
    most_pixels: int = 1280 * 720
    most_minutes: int = 120

    def __post_init__(self) -> None:
        at_least(
            1,
            upload_mb=self.upload_mb,
            most_frames=self.most_frames,
            most_pixels=self.most_pixels,
            most_minutes=self.most_minutes,
        )
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InputError(f"port is {self.port}; it must lie in 1 to 65535")
        if self.auth is not None and not all(self.auth.partition(":")):
            raise InputError("auth must be USER:PASSWORD, as in --auth ann:secret")
        if self.auth is None and not self.local:
            what = "share makes a public link" if self.share else f"others reach host {self.host}"
            raise InputError(
                f"{what}, and every visitor may run edits on this machine; give --auth "
                "USER:PASSWORD too"
            )

    @property
    def local(self) -> bool:
        """Whether this machine alone reaches the page."""
        return self.host in LOOPBACK and not self.share

    @property
    def login(self) -> tuple[str, str] | None:
        """The user and the password, if there is one."""
        if self.auth is None:
            return None
        user, _, password = self.auth.partition(":")
        return user, password
