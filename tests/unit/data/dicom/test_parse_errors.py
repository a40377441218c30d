import logging
import struct
import threading
import traceback
import warnings
import zlib

import pytest
from pydicom.errors import BytesLengthException

from ichtune.data.dicom.parse_errors import unreadable_headers
from ichtune.errors import DataError


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Name^Secret"),
        KeyError("x"),
        struct.error("x"),
        zlib.error("x"),
        EOFError(),
        BytesLengthException("x"),
    ],
)
def test_what_damage_raises_becomes_a_refusal_without_its_content(error):
    with pytest.raises(DataError, match=r"^unreadable_header: ") as caught, unreadable_headers():
        raise error
    assert "Secret" not in "".join(traceback.format_exception(caught.value))


def test_a_refusal_passes_as_it_is_and_so_does_a_defect():
    with pytest.raises(DataError, match=r"^bad_header: x$"), unreadable_headers():
        raise DataError("bad_header: x")
    with pytest.raises(KeyboardInterrupt), unreadable_headers():
        raise KeyboardInterrupt


def test_no_warning_gets_out(recwarn):
    with unreadable_headers():
        warnings.warn("odd file of Name^Secret", stacklevel=1)
    assert not recwarn.list


def test_the_parser_logs_nothing_while_a_header_is_read_and_as_ever_before_and_after(caplog):
    log = logging.getLogger("pydicom")
    with unreadable_headers():
        with unreadable_headers():
            log.error("Name^Secret inside")
        log.warning("Name^Secret inside")
        other = threading.Thread(target=log.warning, args=("of another thread",))
        other.start()
        other.join()
    with pytest.raises(DataError), unreadable_headers():
        raise ValueError
    log.warning("after")
    assert [record.message for record in caplog.records] == ["of another thread", "after"]
