from ichtune.report.identities import HIDDEN, Identities, identities_of

KNOWN = Identities(private=frozenset({"ID_patient7", "Smith^Anna"}), shown=frozenset({"ID_abc", "1.2.3.4.5.6"}))


def test_patients_and_uids_are_blanked_out():
    text = KNOWN.hide("no slice of 'ID_patient7' in /data/Smith^Anna/1.2.840.10008.1.2.4.55, see ID_patient70")
    assert text == f"no slice of '{HIDDEN}' in /data/{HIDDEN}/{HIDDEN}, see ID_patient70"


def test_image_ids_and_numbers_stay():
    text = "slice ID_abc, 1.2.3.4.5.6: loss 0.123, version 2.60.0"
    assert KNOWN.hide(text) == text


def test_identities_are_those_of_the_slices(full_workspace):
    identities = identities_of(full_workspace.open())
    assert "P003" in identities.private
    assert "ID_000001" in identities.shown
    assert not identities.private & identities.shown
    assert "" not in identities.private
