import pytest

from humansplat.io.atomic import creating, replacing, replacing_folder


def test_a_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "a.compressed.ply"
    with replacing(target) as temporary:
        assert temporary.name.endswith(".compressed.ply")
        temporary.write_text("x")
        assert not target.exists()
    assert target.read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_of_two_who_create_a_file_the_first_has_it(tmp_path):
    target = tmp_path / "a.txt"

    def create_late():
        with creating(target) as late:
            with creating(target) as early:
                early.write_text("early")
            late.write_text("late")

    with pytest.raises(FileExistsError):
        create_late()
    assert target.read_text() == "early"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    target = tmp_path / "result"
    for name in ("first", "second"):
        with replacing_folder(target) as temporary:
            (temporary / name).write_text("x")
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_leaves_nothing(tmp_path):
    def fail():
        with replacing_folder(tmp_path / "result") as temporary:
            (temporary / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []
