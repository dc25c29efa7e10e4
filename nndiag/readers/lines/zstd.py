"""zstd, from whatever is installed: Python 3.14 itself, `zstandard`, or the codec in `pyarrow`."""

from __future__ import annotations

from typing import Any, BinaryIO

LARGEST_WINDOW = 27  # bits of the bytes that a file may ask us to keep; `zstd -19` asks for 23


class Damaged(Exception):
    """What any of the libraries says of data that cannot be decompressed."""


class Stream:
    """What `file` holds, through one of the libraries.

    Raises:
        ImportError: none of them is there.
    """

    def __init__(self, file: BinaryIO) -> None:
        try:
            import zstandard  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            import pyarrow

            self._error: type[Exception] = OSError
            source = pyarrow.PythonFile(file, mode="r")
            self._stream: Any = pyarrow.CompressedInputStream(source, "zstd")
        else:
            self._error = zstandard.ZstdError
            library = zstandard.ZstdDecompressor(max_window_size=1 << LARGEST_WINDOW)
            self._stream = library.stream_reader(file, read_across_frames=True, closefd=False)

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`; b"" at the end.

        Raises:
            EOFError: the data are cut off.
            Damaged: they are no zstd.
        """
        try:
            data: bytes = self._stream.read(size)
        except self._error as error:
            if "truncated" in str(error).lower():
                raise EOFError from None
            raise Damaged(str(error)) from None
        return data


class Decompressor:
    """Python's own (3.14 and newer), with the interface of bz2."""

    def __init__(self) -> None:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]

        options = {zstd.DecompressionParameter.window_log_max: LARGEST_WINDOW}
        self._error: type[Exception] = zstd.ZstdError
        self._one: Any = zstd.ZstdDecompressor(options=options)

    @property
    def eof(self) -> bool:
        return bool(self._one.eof)

    @property
    def needs_input(self) -> bool:
        return bool(self._one.needs_input)

    @property
    def unused_data(self) -> bytes:
        data: bytes = self._one.unused_data
        return data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            given: bytes = self._one.decompress(data, max_length)
        except self._error as error:
            raise Damaged(str(error)) from None
        return given
