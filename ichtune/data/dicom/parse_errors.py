"""What a DICOM parser raises on damaged bytes, turned into one refusal."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ichtune.errors import DataError


class _Silence(logging.Filter):
    """Drops what a logger is told by threads that parse a header."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def filter(self, _: logging.LogRecord) -> bool:
        return not getattr(self.here, "is_on", False)


_SILENCE = _Silence()
# pydicom logs whatever it warns of, and quotes the raw value; only while a header is parsed here, it is not heard
logging.getLogger("pydicom").addFilter(_SILENCE)


@contextmanager
def unreadable_headers() -> Iterator[None]:
    """Print and log no warning, and turn what damaged bytes raise into a DataError that holds nothing of their content.

    Raises:
        DataError: ``unreadable_header: ...``; one raised inside passes as it is.
    """
    was_on = getattr(_SILENCE.here, "is_on", False)
    _SILENCE.here.is_on = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises nearly every class there is
        raise DataError(f"unreadable_header: {type(error).__name__} while parsing") from None
    finally:
        _SILENCE.here.is_on = was_on
