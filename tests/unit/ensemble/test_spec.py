import pytest

from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS
from ichtune.ensemble.spec import BlendSpec, read_spec
from ichtune.errors import ConfigError


def read(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return read_spec(path)


def test_a_file_is_read_with_its_defaults(tmp_path):
    spec = read(tmp_path, "version: 1\nblender: convex\nparameters: {space: probability}\nclip: 1e-5\n")
    assert spec == BlendSpec(blender="convex", parameters={"space": "probability"}, clip=1e-5)
    assert (spec.n_top, spec.wanted, spec.post_processing) == (None, None, DEFAULT_STEPS)


def test_steps_are_listed_in_the_order_in_which_they_are_tried(tmp_path):
    assert read(tmp_path, "post_processing: [clip, platt]\n").post_processing == ("clip", "platt")
    for text in ("none", "[]"):
        spec = read(tmp_path, f"post_processing: {text}\n")
        assert spec.post_processing == ()
        assert spec.to_dict()["post_processing"] == "none"
        assert BlendSpec(**spec.to_dict()) == spec


@pytest.mark.parametrize("text", ["any_rule: none\n", "any_rule: at_least_max\nclip: 0\n"])
def test_the_old_key_names_the_new_one(tmp_path, text):
    with pytest.raises(
        ConfigError, match=r"mine.yaml:1:1: unknown key 'any_rule'.*post_processing: \[any_at_least_max\]"
    ):
        read(tmp_path, text)


def test_members_by_rank_or_by_name(tmp_path):
    assert read(tmp_path, "members: {top: 3}\n").n_top == 3
    named = read(tmp_path, "members: ['0123', abc]\n")
    assert named.wanted == ("0123", "abc")
    assert named.to_dict()["members"] == ["0123", "abc"]
    mixed = read(tmp_path, "members: [resnet, {search: windows}, exp_40]\n")
    assert mixed.wanted == ("resnet", {"search": "windows"}, "exp_40")
    assert BlendSpec(**mixed.to_dict()) == mixed
    level = read(tmp_path, "members: [{level: 2}, resnet]\n")
    assert level.wanted == ({"level": 2}, "resnet")
    assert BlendSpec(**level.to_dict()) == level


def test_the_default_chooses_its_blender(tmp_path):
    assert read(tmp_path, "version: 1\n") == BlendSpec()
    assert BlendSpec().blender == "auto"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blendr: convex\n", "unknown key 'blendr'. Did you mean 'blender'"),
        ("blender: convx\n", "unknown blender 'convx'. Did you mean 'convex'"),
        ("blender: [convex]\n", "'blender' must be a name"),
        ("blender: convex\nparameters: {spce: logit}\n", "no parameter 'spce'. Did you mean 'space'"),
        ("blender: convex\nparameters: {space: logits}\n", "Did you mean 'logit'"),
        ("parameters: 3\n", "'parameters' must map"),
        ("post_processing: [plat]\n", "unknown step 'plat'. Did you mean 'platt'"),
        ("post_processing: no\n", "must be a list of steps, or none, got 'no'"),
        ("post_processing: {platt: 1}\n", "must be a list of steps"),
        ("post_processing: [[platt]]\n", "unknown step"),
        ("post_processing: [clip, platt, clip]\n", "names a step twice"),
        ("post_processing: [prior_shift, clip]\n", "prior_shift must be the last step"),
        ("version: 2\n", "'version' must be 1, got 2"),
        ("clip: 0\n", "'clip' must be"),
        ("clip: small\n", "'clip' must be"),
        ("members: some\n", "'members' must be `all`"),
        ("members: {best: 3}\n", "must be {top: k}"),
        ("members: {top: 0}\n", "at least 1, got 0"),
        ("members: [a, a]\n", "names a run twice"),
        ("members: [{search: a}, {search: a}]\n", "names a run twice"),
        ("members: [{serach: a}]\n", "{search: NAME}"),
        ("members: [{search: 1}]\n", "{search: NAME}"),
        ("members: [{search: a, top: 1}]\n", "{search: NAME}"),
        ("members: [{level: 3}]\n", "{level: 2}"),
        ("members: [{level: yes}]\n", "{level: 2}"),
        ("members: [{level: 2}, {level: 2}]\n", "names a run twice"),
        ("members: [123]\n", "recipe_ids in quotes"),
        ("members: []\n", "'members'"),
        ("blender: convex\nparameters: {space: [x]}\n", "unknown space"),
        ("- a\n", "must map keys to values"),
        ("~\n", "must map keys to values"),
        ("", "the file is empty"),
        ("blender: convex\nblender: equal_mean\n", ":2:1: duplicate key 'blender', first on line 1"),
        ("blender: !!python/name:os.system\n", ":1:10: the tag .* is not allowed"),
        ("blender: [\n", "not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert "mine.yaml" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: 1\nblendr: convex\n", "2:1: unknown key"),
        ("version: 1\nclip: 0\n", "2:7: key 'clip'"),
        ("blender: equal_mean\nparameters:\n  space: logit\n", "3:3: blender 'equal_mean' has no parameter 'space'"),
        ("post_processing: [x]\nclip: 0\n", "1:18: key 'post_processing'"),
    ],
)
def test_a_mistake_is_placed_by_line_and_column(tmp_path, text, place):
    with pytest.raises(ConfigError, match=f"mine.yaml:{place}"):
        read(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_spec(path)
