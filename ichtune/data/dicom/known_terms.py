"""What a message may quote of a header's text: terms that the standard defines, and UIDs.

Any tag of a damaged file may hold any text, a person's name as well, and messages go to tables and logs.
"""

import re
from collections.abc import Collection

_MODALITIES = """
ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT
IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF
RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG
US VA XA XAPROTOCOL XC
"""
#: Defined terms of Modality. Source: DICOM PS3.3 C.7.3.1.1.1.
MODALITIES = frozenset(_MODALITIES.split())
#: Defined terms of PhotometricInterpretation, retired ones as well. Source: DICOM PS3.3 C.7.6.3.1.2.
PHOTOMETRIC_INTERPRETATIONS = frozenset(
    {
        "MONOCHROME1",
        "MONOCHROME2",
        "PALETTE COLOR",
        "RGB",
        "HSV",
        "ARGB",
        "CMYK",
        "YBR_FULL",
        "YBR_FULL_422",
        "YBR_PARTIAL_422",
        "YBR_PARTIAL_420",
        "YBR_ICT",
        "YBR_RCT",
        "XYB",
    }
)
#: Defined terms of RescaleType. Source: DICOM PS3.3 C.11.1.1.2.
RESCALE_TYPES = frozenset({"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"})

ABSENT, UNKNOWN = "none", "an unknown one"
_MAX_UID_CHARS = 64
#: Numbers without leading zeros, two at least: no date is written like that of its own accord.
_UID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+")


def quoted_term(value: str, terms: Collection[str]) -> str:
    """Return a header's value in capitals where it is a known term, else words that say what it is not.

    Args:
        value: text of a header.
        terms: what may be quoted, in capitals.

    Returns:
        One of the terms, ``ABSENT`` or ``UNKNOWN``.
    """
    if not value:
        return ABSENT
    term = value.upper()
    return term if term in terms else UNKNOWN


def quoted_uid(value: str) -> str:
    """Return a header's value where it is a UID, else ``ABSENT`` or ``UNKNOWN``.

    Source: DICOM PS3.5 9.1.
    """
    if not value:
        return ABSENT
    return value if len(value) <= _MAX_UID_CHARS and _UID.fullmatch(value) else UNKNOWN
