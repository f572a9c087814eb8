import pytest

from palm.artifacts import ArtifactError, read_json, write_json
from palm.hub import HubObject, locate


class Note(HubObject):
    def __init__(self, text):
        self.text = text

    def _write(self, folder):
        write_json(folder / "note.json", {"text": self.text})

    @classmethod
    def _read(cls, folder):
        return cls(read_json(folder / "note.json")["text"])


def test_a_folder_is_loaded_as_it_was_saved(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.txt").write_text("left alone")
    Note("grüße").save_pretrained(str(tmp_path / "deep"))
    assert Note.from_pretrained(str(tmp_path / "deep")).text == "grüße"
    assert (tmp_path / "deep" / "other.txt").read_text() == "left alone"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="below: expected a folder that can be made: Not a directory"):
        Note("x").save_pretrained(tmp_path / "file" / "below")


def test_a_folder_in_the_working_directory_comes_before_a_repository_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Note("here").save_pretrained("organisation/name")
    assert Note.from_pretrained("organisation/name").text == "here"


@pytest.mark.parametrize("source", ["./no/such", "/no/such", "~/no", "such", "one/two/three"])
def test_what_cannot_be_a_repository_is_not_asked_for(source):
    with pytest.raises(ArtifactError, match=f"^{source}: no such folder$"):
        locate(source)


def test_a_repository_that_the_hub_does_not_give_is_named(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # as HF_HUB_OFFLINE=1 would
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"^nobody/nothing-at-all: neither a folder here nor a repository that the Hub gave: "):
        locate("nobody/nothing-at-all")


def test_a_name_that_the_hub_refuses_is_named():
    with pytest.raises(ArtifactError, match=r"^bad name/--x: neither a folder here nor a repository"):
        locate("bad name/--x")


def test_objects_without_a_form_on_disk_say_so(tmp_path):
    with pytest.raises(TypeError, match="HubObject cannot be saved"):
        HubObject().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="HubObject cannot be loaded"):
        HubObject.from_pretrained(tmp_path)
