"""Camera files: what is written comes back, other programs' files mean what they say, and a stranger's are checked."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from freesteer.core.camera_files import checks as camera_file_checks
from freesteer.core.camera_files import files as camera_files
from freesteer.core.camera_files.checks import CameraFileError
from freesteer.core.camera_files.colmap import from_colmap, to_colmap
from freesteer.core.camera_files.nerfstudio import from_nerfstudio, to_nerfstudio
from freesteer.core.geometry import cameras
from freesteer.core.geometry.cameras import CameraPath

SIMPLE = [[1.0, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 4], [0, 0, 0, 1]]  # at (2, 3, 4)
CAMERA = "# a comment\n1 PINHOLE 640 480 500 510 320.5 240.25\n"
IMAGE = "1 1 0 0 0 0 0 0 1 a.png\n\n"


def path(frames: int = 12) -> CameraPath:
    twists = torch.randn(frames, 6, generator=torch.Generator().manual_seed(0)) * 1.5
    return CameraPath(cameras.exponential(twists), torch.tensor([501.5, 498.25]), torch.tensor([317.0, 243.1]), (480, 640))


def content(**changed: object) -> dict:
    """Of a transforms.json with two frames."""
    frames = [{"file_path": f"images/{n}.png", "transform_matrix": copy.deepcopy(SIMPLE)} for n in range(2)]
    return {"fl_x": 500.0, "fl_y": 510.0, "cx": 320, "cy": 240, "w": 640, "h": 480, "frames": frames, **changed}


def with_pose(place: tuple[int, int], value: object) -> dict:
    changed = content()
    changed["frames"][1]["transform_matrix"][place[0]][place[1]] = value
    return changed


def assert_same(a: CameraPath, b: CameraPath) -> None:
    torch.testing.assert_close(a.poses, b.poses, rtol=1e-5, atol=1e-6)
    assert torch.equal(a.focal, b.focal) and torch.equal(a.centre, b.centre)
    assert a.size == b.size
    assert a.poses.dtype == a.focal.dtype == a.centre.dtype == torch.float32


@pytest.mark.parametrize("name", ["transforms.json", "sparse"])
def test_a_saved_path_comes_back(tmp_path: Path, name: str) -> None:
    camera_files.save(path(), tmp_path / name)
    assert_same(camera_files.load(tmp_path / name), path())


def test_colmap_is_three_files_and_either_of_two_stands_for_them(tmp_path: Path) -> None:
    camera_files.save(path(), tmp_path / "new" / "sparse")
    assert sorted(os.listdir(tmp_path / "new" / "sparse")) == ["cameras.txt", "images.txt", "points3D.txt"]
    for name in ("cameras.txt", "images.txt"):
        assert_same(camera_files.load(tmp_path / "new" / "sparse" / name), path())


def test_an_unfinished_file_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(camera_files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        camera_files.save(path(), tmp_path / "transforms.json")
    assert os.listdir(tmp_path) == []


def test_both_formats_say_the_same() -> None:
    colmap = to_colmap(path())
    one = from_colmap(colmap["cameras.txt"], colmap["images.txt"])
    assert_same(one, from_nerfstudio(to_nerfstudio(path())))


def test_nerfstudio_has_cameras_in_the_world_that_look_down_their_z() -> None:
    """A camera at (1, 2, 3) that looks along the world's +x, with the world's +y down in its picture."""
    pose = cameras.look_at(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 2.0, 3.0]))
    made = to_nerfstudio(CameraPath(pose[None], torch.ones(2), torch.ones(2), (4, 6)))
    right, up, back, place = torch.tensor(made["frames"][0]["transform_matrix"])[:3].unbind(1)
    torch.testing.assert_close(place, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(back, torch.tensor([-1.0, 0.0, 0.0]))
    torch.testing.assert_close(up, torch.tensor([0.0, -1.0, 0.0]))
    torch.testing.assert_close(right, torch.tensor([0.0, 0.0, -1.0]))
    assert (made["w"], made["h"]) == (6, 4)
    assert made["frames"][0]["file_path"] == "images/frame_00001.png"
    json.dumps(made, allow_nan=False)


def test_nerfstudio_is_read_as_it_is_meant() -> None:
    """Unturned at (2, 3, 4), the camera looks down -z with +y up: a point at (2, 3, 3) is 1 before it, one at (2, 4, 3) above."""
    found = from_nerfstudio(content())
    seen = torch.tensor([[2.0, 3, 3], [2, 4, 3]]) @ found.poses[0, :3, :3].mT + found.poses[0, :3, 3]
    torch.testing.assert_close(seen, torch.tensor([[0.0, 0, 1], [0, -1, 1]]))
    assert (found.focal.tolist(), found.centre.tolist(), found.size) == ([500, 510], [320, 240], (480, 640))


def test_colmap_is_read_as_it_is_meant() -> None:
    """A quarter turn about x takes the world's y to the camera's z; lines of points are passed over, empty or not."""
    half = 0.5**0.5
    images = f"# a comment\n\n1 {half} {half} 0 0 1 2 3 1 a b.png\n 10.5 20.5 7 11 12 -1 \n2 1 0 0 0 0 0 0 1 b.png\n\n"
    found = from_colmap(CAMERA, images.replace("\n", "\r\n"))
    torch.testing.assert_close(found.poses[0] @ torch.tensor([0.0, 1, 0, 1]), torch.tensor([1.0, 2, 4, 1]))
    torch.testing.assert_close(found.poses[1], torch.eye(4))
    assert (found.focal.tolist(), found.centre.tolist(), found.size) == ([500, 510], [320.5, 240.25], (480, 640))
    simple = from_colmap("1 SIMPLE_PINHOLE 640 480 500 320.5 240.25", images)
    assert (simple.focal.tolist(), simple.centre.tolist()) == ([500, 500], [320.5, 240.25])


def test_frames_come_in_the_order_of_their_numbers() -> None:
    images = "".join(f"{i} 1 0 0 0 {number} 0 0 1 f{number}.png\n\n" for i, number in enumerate((10, 2, 1), 1))
    assert from_colmap(CAMERA, images).poses[:, 0, 3].tolist() == [1, 2, 10]
    changed = content()
    for frame, name in zip(changed["frames"], ("1٣10.png", "1٣9.png"), strict=True):
        frame["file_path"] = name
    changed["frames"][1]["transform_matrix"][0][3] = 7.0
    assert from_nerfstudio(changed).positions[:, 0].tolist() == [7, 2]
    changed["frames"][0]["file_path"] = "1a9.png"  # beside a digit that is not one of ours
    assert from_nerfstudio(changed).positions[:, 0].tolist() == [2, 7]


def test_a_matrix_that_is_nearly_a_rotation_becomes_one() -> None:
    found = from_nerfstudio(with_pose((0, 0), 1.0004)).poses[:, :3, :3]
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)


def test_intrinsics_may_stand_in_every_frame() -> None:
    changed = content()
    del changed["fl_x"]
    for frame in changed["frames"]:
        frame["fl_x"] = 400.0
    assert from_nerfstudio(changed).focal[0] == 400
    changed["frames"][0]["fl_x"] = 401.0
    with pytest.raises(CameraFileError, match="fl_x differs: all frames must share one camera"):
        from_nerfstudio(changed)
    del changed["frames"][0]["fl_x"]
    with pytest.raises(CameraFileError, match="fl_x differs"):
        from_nerfstudio(changed)


def test_cameras_with_the_same_values_are_one() -> None:
    two = CAMERA + CAMERA.splitlines()[1].replace("1", "2", 1)
    images = IMAGE + "2 1 0 0 0 0 0 0 2 b.png\n\n"
    assert len(from_colmap(two, images)) == 2
    with pytest.raises(CameraFileError, match=r"images.txt uses 2 different cameras.*single_camera"):
        from_colmap(two.replace("2 PINHOLE 640", "2 PINHOLE 642"), images)


def twice() -> dict:
    changed = content()
    changed["frames"][1]["file_path"] = changed["frames"][0]["file_path"]
    return changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (content(frames=[]), "transforms.json has 0 frames"),
        (content(frames="all"), "no list of frames"),
        (content(frames=[1]), "no list of frames"),
        ([], "no list of frames"),
        (content(frames=content()["frames"] * 5001), "has 10002 frames"),
        (content(frames=[{"transform_matrix": SIMPLE}]), r"which picture frame 1 is \(file_path\)"),
        (content(frames=[{"file_path": "a.png", "transform_matrix": SIMPLE[:3]}]), "4 x 4 numbers for frame 'a.png'"),
        (twice(), "two frames called 'images/0.png'"),
        (with_pose((0, 0), 1.01), "for frame 'images/1.png' that scales, skews or mirrors"),
        (with_pose((0, 0), -1.0), "for frame 'images/1.png' that scales, skews or mirrors"),
        (with_pose((0, 1), 0.01), "for frame 'images/1.png' that scales, skews or mirrors"),
        (with_pose((3, 3), 2.0), "'images/1.png' whose last row is not 0 0 0 1"),
        (with_pose((1, 3), float("nan")), "has nan for the pose of 'images/1.png'"),
        (with_pose((1, 3), 1e30), "has 1e\\+30 for the pose of 'images/1.png'"),
        (with_pose((1, 3), 10**5000), "has int for the pose of 'images/1.png'"),
        (with_pose((1, 3), True), "has bool for the pose of 'images/1.png'"),
        (with_pose((1, 3), "1" * 1000), "has '1{60}' for the pose of 'images/1.png'"),
        (content(fl_x=0), "focal length of 0"),
        (content(fl_x=None), "has NoneType for fl_x"),
        (content(w=640.5), "pictures of 640.5 x 480"),
        (content(h=10**6), "pictures of 640 x 1e\\+06"),
        (content(k1=0.01), r"lens distortion \(k1\)"),
        (content(camera_model="OPENCV_FISHEYE"), "kind 'OPENCV_FISHEYE'"),
        ({key: value for key, value in content().items() if key != "cy"}, "lacks cy"),
    ],
)
def test_what_is_wrong_with_a_transforms_file_is_said(changed: dict, said: str) -> None:
    with pytest.raises(CameraFileError, match=said) as error:
        from_nerfstudio(changed)
    assert len(str(error.value)) < 250 and "\n" not in str(error.value)


def test_distortion_of_nothing_is_none() -> None:
    assert len(from_nerfstudio(content(k1=0, k2=0.0, p1=0, camera_model="OPENCV"))) == 2


@pytest.mark.parametrize(
    ("cameras_text", "images_text", "said"),
    [
        (CAMERA, "", "images.txt has 0 frames"),
        (CAMERA, "1 1 0 0 0 0 0 0 1\n", "a line 1 that describes no picture"),
        (CAMERA, "# what\n1 1 0 0 0 0 nan 0 1 a.png\n", "images.txt has 'nan' for the pose of 'a.png'"),
        (CAMERA, "1 1 0 0 0 0 1e300 0 1 a.png\n", "images.txt has '1e300' for the pose of 'a.png'"),
        (CAMERA, "1 1 0 0 0 0 __import__('os') 0 1 a.png\n", "for the pose of 'a.png'"),
        (CAMERA, "1 1.1 0 0 0 0 0 0 1 a.png\n", "a quaternion for frame 'a.png' whose length is not 1"),
        (CAMERA, "1 0 0 0 0 0 0 0 1 a.png\n", "a quaternion for frame 'a.png' whose length is not 1"),
        (CAMERA, "1 1 0 0 0 0 0 0 7 a.png\n", "frame 'a.png' by camera '7', which cameras.txt lacks"),
        (CAMERA, IMAGE * 2, "two frames called 'a.png'"),
        (CAMERA, "1 1 0 0 0 0 0 0 1 a.png\n2 1 0 0 0 0 0 0 1 b.png\n", "no line of points after frame 'a.png'"),
        ("", IMAGE, "by camera '1', which cameras.txt lacks"),
        ("1\n", IMAGE, "camera of kind ''"),
        ("1 PINHOLE\n", IMAGE, "a line 1 that describes no camera"),
        ("1 OPENCV 640 480 500 500 320 240 0 0 0 0\n", IMAGE, "kind 'OPENCV': undistort"),
        ("1 PINHOLE 640 480 500 320 240\n", IMAGE, "a line 1 that describes no camera"),
        ("\n1 PINHOLE 640 480 500 500 320 inf\n", IMAGE, "cameras.txt has 'inf' for camera '1'"),
        ("1 PINHOLE 640 0 500 500 320 240\n", IMAGE, "pictures of 640 x 0"),
        ("1 PINHOLE 640 480 500 -500 320 240\n", IMAGE, "focal length of -500"),
    ],
)
def test_what_is_wrong_with_a_colmap_model_is_said(cameras_text: str, images_text: str, said: str) -> None:
    with pytest.raises(CameraFileError, match=said) as error:
        from_colmap(cameras_text, images_text)
    assert len(str(error.value)) < 250 and "\n" not in str(error.value)


def test_a_colmap_model_of_too_many_frames_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(camera_file_checks.MOST, "frames", 2)
    images = "".join(f"{i} 1 0 0 0 0 0 0 1 {i}.png\n\n" for i in range(3))
    with pytest.raises(CameraFileError, match=r"images\.txt has 3 frames: 1 to 2 are possible"):
        from_colmap(CAMERA, images)
    assert len(from_colmap(CAMERA, images[: images.index("2 1 0")])) == 2


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe{}", b"[" * 100_000, b"\x80\x04K\x01.", b""])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "my.json").write_bytes(text)
    with pytest.raises(CameraFileError, match=r"^my\.json is (damaged or is no JSON|no text) file"):
        camera_files.load(tmp_path / "my.json")


def test_a_file_is_called_by_its_own_name_and_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "my.json").write_text(json.dumps(content()), encoding="utf-8-sig")
    assert len(camera_files.load(tmp_path / "my.json")) == 2
    for text in (json.dumps(content(w=0)), json.dumps(content()).replace("640", "1" * 5000)):
        (tmp_path / "my.json").write_text(text)
        with pytest.raises(CameraFileError, match=r"^my\.json has"):
            camera_files.load(tmp_path / "my.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera_files.save(path(), tmp_path / "my.json")
    camera_files.save(path(), tmp_path)
    monkeypatch.setattr(camera_file_checks, "LARGEST", {".json": 1000, ".txt": 1000})
    with pytest.raises(CameraFileError, match=r"my\.json is larger than any camera file"):
        camera_files.load(tmp_path / "my.json")
    with pytest.raises(CameraFileError, match=r"images\.txt is larger than any camera file"):
        camera_files.load(tmp_path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CameraFileError, match=r"gone\.json cannot be read \(No such file"):
        camera_files.load(tmp_path / "gone.json")
    with pytest.raises(CameraFileError, match=r"cameras\.txt cannot be read"):
        camera_files.load(tmp_path)
    with pytest.raises(CameraFileError, match=r"clip\.mp4 is no camera file"):
        camera_files.load(tmp_path / "clip.mp4")
    (tmp_path / "cameras.bin").touch()
    with pytest.raises(CameraFileError, match="convert it"):
        camera_files.load(tmp_path)


@pytest.mark.parametrize("name", ["transforms.json", "sparse"])
def test_a_path_that_is_not_finite_is_not_written(tmp_path: Path, name: str) -> None:
    broken = path()
    broken.poses[3, 0, 3] = torch.nan
    with pytest.raises(ValueError, match="not numbers"):
        camera_files.save(broken, tmp_path / name)
    assert os.listdir(tmp_path) == []


def renamed(name: object) -> dict:
    changed = content()
    changed["frames"][1]["file_path"] = name
    return changed


def test_names_may_be_a_thousand_letters_long() -> None:
    assert len(from_nerfstudio(renamed("a" * 1000))) == 2
    assert len(from_colmap(CAMERA, IMAGE.replace("a.png", "a" * 1000))) == 1
    for name in ("a" * 1001, "", None):
        with pytest.raises(CameraFileError, match=r"which picture frame 2 is \(file_path\)"):
            from_nerfstudio(renamed(name))
    with pytest.raises(CameraFileError, match="describes no picture"):
        from_colmap(CAMERA, IMAGE.replace("a.png", "a" * 1001))


@pytest.mark.parametrize("side", ["w", "h"])
def test_pictures_may_have_1_to_65536_pixels_a_side(side: str) -> None:
    for pixels in (1, 65_536):
        assert pixels in from_nerfstudio(content(**{side: pixels})).size
    for pixels in (0, -1, 65_537):
        with pytest.raises(CameraFileError, match="1 to 65536 whole pixels"):
            from_nerfstudio(content(**{side: pixels}))


def test_numbers_may_be_as_large_as_a_scene_and_focal_lengths_as_small() -> None:
    largest = cameras.FARTHEST
    assert from_nerfstudio(with_pose((0, 3), -largest)).positions[1, 0] == -largest
    with pytest.raises(CameraFileError, match="not a number within"):
        from_nerfstudio(with_pose((0, 3), -1.01 * largest))
    assert from_nerfstudio(content(fl_x=1 / largest, fl_y=1)).focal[0] == pytest.approx(1 / largest)
    with pytest.raises(CameraFileError, match="focal length"):
        from_nerfstudio(content(fl_x=1, fl_y=0.5 / largest))


def test_there_may_be_ten_thousand_frames_and_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    assert camera_file_checks.MOST["frames"] == camera_file_checks.MOST["cameras"] == 10_000
    monkeypatch.setitem(camera_file_checks.MOST, "frames", 2)
    monkeypatch.setitem(camera_file_checks.MOST, "cameras", 2)
    assert len(from_nerfstudio(content())) == 2
    two, three = ("".join(f"{i} PINHOLE 640 480 500 500 320 240\n" for i in range(1, count + 1)) for count in (2, 3))
    assert len(from_colmap(two, IMAGE)) == 1
    with pytest.raises(CameraFileError, match="more than 2 cameras"):
        from_colmap(three, IMAGE)


@pytest.mark.parametrize(("row", "column", "value", "right"), [(0, 0, 1.0004, True), (0, 1, 0.0009, True), (0, 1, 0.0011, False)])
def test_a_pose_may_be_off_by_a_thousandth(row: int, column: int, value: float, right: bool) -> None:
    if right:
        assert len(from_nerfstudio(with_pose((row, column), value))) == 2
        return
    with pytest.raises(CameraFileError, match="scales, skews or mirrors"):
        from_nerfstudio(with_pose((row, column), value))


@pytest.mark.parametrize(("value", "right"), [(1.0009, True), (0.9991, True), (1.0011, False), (0.9989, False)])
def test_a_quaternion_may_be_off_by_a_thousandth(value: float, right: bool) -> None:
    images = IMAGE.replace("1 1 0 0 0", f"1 {value} 0 0 0")
    if right:
        torch.testing.assert_close(from_colmap(CAMERA, images).poses[0], torch.eye(4))
        return
    with pytest.raises(CameraFileError, match="length is not 1"):
        from_colmap(CAMERA, images)


@pytest.mark.parametrize("place", [(3, 0), (3, 1), (3, 2)])
def test_the_last_row_of_a_pose_is_0_0_0_1(place: tuple[int, int]) -> None:
    assert len(from_nerfstudio(with_pose(place, 0.0009))) == 2
    with pytest.raises(CameraFileError, match="last row"):
        from_nerfstudio(with_pose(place, -0.0011))


def test_two_lines_for_a_picture_and_the_last_may_lack_its_end() -> None:
    images = "1 1 0 0 0 5 0 0 1 a.png\n\n2 1 0 0 0 6 0 0 1 b.png"
    assert from_colmap(CAMERA.rstrip("\n"), images).poses[:, 0, 3].tolist() == [5, 6]


def test_errors_count_lines_from_one_and_comments_too() -> None:
    with pytest.raises(CameraFileError, match="line 4 that describes no picture"):
        from_colmap(CAMERA, "# one\n" + IMAGE + "1 1 0\n")
    with pytest.raises(CameraFileError, match="line 3 that describes no camera"):
        from_colmap(CAMERA + "2 PINHOLE 640\n", IMAGE)


def test_pictures_are_numbered_from_one_with_five_digits() -> None:
    written = to_colmap(path(2))["images.txt"].splitlines()
    assert [line.split()[0] + " " + line.split()[-1] for line in written[1::2]] == ["1 frame_00001.png", "2 frame_00002.png"]
    assert written[2::2] == ["", ""]
    assert to_colmap(path(2))["cameras.txt"].splitlines()[1] == "1 PINHOLE 640 480 501.5 498.25 317.0 243.10000610351562"


def test_a_file_of_just_the_largest_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera_files.save(path(), tmp_path / "my.json")
    size = (tmp_path / "my.json").stat().st_size
    monkeypatch.setitem(camera_file_checks.LARGEST, ".json", size)
    assert len(camera_files.load(tmp_path / "my.json")) == 12
    monkeypatch.setitem(camera_file_checks.LARGEST, ".json", size - 1)
    with pytest.raises(CameraFileError, match="larger than any"):
        camera_files.load(tmp_path / "my.json")
    assert camera_file_checks.LARGEST[".txt"] // 2**20 == 256


def test_the_limit_of_a_file_is_said_in_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(camera_file_checks.LARGEST, ".json", 3 * 2**20)
    (tmp_path / "my.json").write_bytes(bytes(3 * 2**20 + 1))
    with pytest.raises(CameraFileError, match=r"\(3 MB\)"):
        camera_files.load(tmp_path / "my.json")


def test_a_blank_first_line_is_passed_over() -> None:
    assert len(from_colmap(f"\n{CAMERA}", "\n1 1 0 0 0 0 0 0 1 a.png\n\n")) == 1
