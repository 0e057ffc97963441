"""Where the nodes of each template stand, drawn by hand. Units are the canvas's own.

A template opens at 75 % or more in a window of 1600 x 1000 when it is at most 1580 wide and 980 high, titles of nodes
(30 above each) counted. Once that is so, tests/server/test_browser.py tells what lies on what.
"""

from typing import NamedTuple

Point = tuple[int, int]


class Note(NamedTuple):
    place: tuple[int, int, int, int]  # x, y, width, height
    text: str


class Layout(NamedTuple):
    """`places`: x and y of a node's body, below its title; its width, and its height where it shows something. `collapsed`: nodes
    of which only the title is seen. `ways`: the dots that the link to NODE.INPUT passes. `groups`: their nodes, by title."""

    places: dict[str, tuple[int, ...]]
    groups: dict[str, tuple[str, ...]]
    note: Note
    ways: dict[str, tuple[Point, ...]]
    collapsed: tuple[str, ...] = ()


FREECONTROL_NOTE = (
    "Press **Run**: the steered stars lie where the conditions show them, the unsteered ones anywhere. "
    "Then change the *Prompt* to 'a blue star on sand': the layout stays. "
    "Then try another *strength*, or another *seed* of the conditions."
)
CHECKPOINT_NOTE = (
    "Choose a checkpoint and a picture, say what it shows in both texts about it, and press **Run**. "
    "Then change the *Prompt*: the basis is kept. "
    "With *strength* 0 you see the same seed unsteered."
)
SELFTEST_NOTE = (
    "Press **Run**: FreeControl is tried on four conditions, and figures and a sheet are saved. "
    "Then put your own checkpoint loader in the place of the playground's, its usual size into the empty latent, and run again. "
    "Send us the JSON file and the sheet when something does not work."
)
SPLATS_NOTE = (
    "Press **Run**: frames alone become cameras and a scene of Gaussian splats, in some minutes. "
    "Then choose another *kind* of clip, or the preset *standard* for a sharper scene. "
    "For a video of your own, open the template *splats_video*."
)
FLIGHT_NOTE = (
    "Press **Run**: a new camera flies through the scene of a clip. "
    "Then change *degrees*, *height* or *distance*: only the flight is drawn again. "
    "For a larger film, set *width* in Render Splat Path."
)
VIDEO_NOTE = (
    "Choose a clip of 10 to 60 frames of a scene that holds still, get a model of Depth Anything 3, and press **Run**. "
    "Without a GPU take the preset *preview*. "
    "The depth nodes may be left out, which is slower."
)
PEEKABOO_NOTE = (
    "Press **Run**: above, both objects are in their boxes; below, the same noise puts them anywhere. "
    "Then move a box (left, top, right, bottom), or write other things in the prompt and in *phrase*. "
    "In a clip a track has a line for each keyframe, such as '50%: 0.3 0.3 0.7 0.7'."
)
PEEKABOO_CLIP_NOTE = (
    "Press **Run**: above, the star goes with its box; below, without it, the star goes right as the prompt says, but where it likes. "
    "Then change the *keyframes*: a line has a time, and left, top, right and bottom of the box. "
    "Say the same motion in the prompt, or the two pull at the thing from both sides."
)
FREEINIT_NOTE = (
    "Press **Run**: both clips begin with the same noise, the lower one is begun eight times more from its own low frequencies. "
    "Then try more *extra_passes*, or other noise with another *seed* in both samplers. "
    "A lower *temporal* is steadier, with slower motion."
)
FREECONTROL_CLIP_NOTE = (
    "Press **Run**: the steered clip moves as the condition does, the unsteered one as it likes. "
    "Then change the *motion* of the condition, or the *Prompt* to 'a blue star on sand'. "
    "With your own video model, load any clip as condition, and set size and length in *Empty Clip Latent*."
)

COMPOSITION_NOTE = (
    "Press **Run**: above, ring and heart are kept apart; below, the same noise without it. "
    "On the right, where the model looks for each of them in the first picture below. "
    "Then write another prompt in both texts, with two to four things in it."
)
REGIONS_NOTE = (
    "Press **Run**: above, star and ring lie where their own conditions show them; below, the same noise without. "
    "Then change the *seed* of a condition. "
    "With pictures of your own: load one for each thing, paint over the thing in the mask editor, and connect image and mask."
)
LARGE_NOTE = (
    "Press **Run**: one picture, four times as wide as the model knows, in which each prompt becomes the next. "
    "Then write other cells, or a second line of them with a *height* of 256. "
    "With your own model: its loader in the place of the playground's, its usual size as *window*, half of it as *stride*."
)

FREECONTROL = Layout(
    places={
        "1": (0, 0, 235), "2": (0, 185, 235), "5": (280, 65, 240), "6": (280, 200, 240),  # model, prompts
        "3": (0, 410, 235), "4": (280, 410, 240),  # condition
        "7": (570, 0, 210), "8": (570, 410, 210),  # samplers
        "9": (850, -10, 140), "10": (850, 35, 140),  # decoders
        "11": (850, 110, 220, 280), "12": (1090, 110, 220, 280), "13": (1330, 110, 220, 280),  # pictures
        "14": (1090, 455, 380, 360),
    },
    groups={"Model": ("1", "2", "5", "6"), "Condition": ("3", "4"), "Draw": ("7", "8"), "Compare": ("9", "10", "11", "12", "13", "14")},
    note=Note((850, 455, 220, 360), FREECONTROL_NOTE),
    ways={
        "7.latent_image": ((258, 322), (545, 322)), "8.latent_image": ((258, 322), (545, 322)),
        "4.vae": ((258, 346),), "9.vae": ((258, 346), (815, 346)), "10.vae": ((258, 346), (815, 346)),
        "11.images": ((258, 765), (830, 765)),
        "14.condition": ((258, 785), (830, 785), (830, 408), (1070, 408)),
        "12.images": ((1080, 50),), "14.unsteered": ((1080, 50), (1080, 408)),
        "13.images": ((1320, 50),), "14.result": ((1080, 70), (1080, 428)),
    },
    collapsed=("9", "10"),
)  # fmt: skip

CHECKPOINT = Layout(
    places={
        "1": (0, 0, 270), "2": (0, 150, 270), "3": (0, 580, 270, 330),
        "4": (320, 0, 260), "5": (320, 698, 260), "6": (630, 580, 210), "8": (630, 0, 210), "9": (630, 140, 210),
        "7": (890, 195, 250), "10": (1190, 0, 210), "11": (970, 475, 140),
        "13": (890, 580, 230, 330), "12": (1150, 580, 220, 330),
    },
    groups={"Model": ("1", "2", "4"), "Condition": ("3", "5", "6"), "Draw": ("7", "8", "9", "10", "11"), "Compare": ("13", "12")},
    note=Note((320, 850, 520, 60), CHECKPOINT_NOTE),
    ways={
        "6.model": ((295, 376), (605, 376)), "7.model": ((295, 376), (605, 376), (865, 376)),
        "8.clip": ((295, 394), (605, 394)), "9.clip": ((295, 394), (605, 394)),
        "6.vae": ((295, 412), (605, 412)), "11.vae": ((295, 412), (605, 412), (865, 460)),
        "10.latent_image": ((295, 500), (605, 500), (1165, 500)),
        "6.image": ((295, 650), (605, 650)), "5.clip": ((295, 394), (295, 560)),
        "11.samples": ((1425, 436), (1190, 436), (945, 436)),
    },
    collapsed=("11",),
)  # fmt: skip

SPLATS = Layout(
    places={
        "1": (0, 60, 230), "2": (285, 60, 250, 430),
        "3": (590, 0, 210), "5": (590, 150, 210), "9": (590, 300, 210), "7": (590, 460, 210),
        "4": (850, 40, 300, 310), "6": (1170, 40, 300, 310), "10": (850, 470, 300, 400), "8": (1170, 448, 300, 266),
    },
    groups={"Clip": ("1",), "Cameras and splats": ("2",), "Look": ("3", "5", "9", "7", "4", "6", "10", "8")},
    note=Note((0, 620, 535, 150), SPLATS_NOTE),
    ways={
        "3.images": ((258, -20), (562, -20)), "7.reference": ((258, 545), (562, 545)),
        "8.cameras": ((562, 404), (1160, 404)), "8.splat": ((562, 386), (1160, 386)),
        "6.video": ((825, -8), (1160, -8)),
    },
)  # fmt: skip

FLIGHT = Layout(
    places={
        "1": (0, 0, 230), "2": (290, 0, 250, 430), "3": (600, 60, 210), "4": (860, 0, 230), "5": (1140, 0, 210),
        "6": (870, 400, 465, 450), "7": (290, 560, 520, 310),
    },
    groups={"Clip": ("1",), "Cameras and splats": ("2",), "Flight": ("3", "4", "5"), "Where it flies": ("7",), "Look": ("6",)},
    note=Note((0, 560, 230, 310), FLIGHT_NOTE),
    ways={
        "6.video": ((1380, 300), (845, 300)),
        "7.cameras": ((835, 450), (265, 480)), "7.splat": ((565, 465), (265, 495)),
    },
)  # fmt: skip

VIDEO = Layout(
    places={
        "1": (0, 0, 240, 330), "2": (290, 0, 220), "3": (290, 150, 220), "4": (560, 80, 210), "5": (820, 80, 230),
        "6": (1100, 0, 250, 390), "7": (290, 530, 250), "10": (290, 660, 250), "8": (590, 530, 390, 350), "9": (1020, 530, 330, 270),
    },
    groups={"Clip": ("1",), "Frames and depth": ("2", "3", "4", "5"), "Cameras and splats": ("6",), "Look": ("7", "8", "9", "10")},
    note=Note((0, 530, 230, 350), VIDEO_NOTE),
    ways={
        "9.cameras": ((1375, 450), (995, 450)), "10.cameras": ((1375, 450), (995, 450), (262, 450)),
        "9.splat": ((1375, 432), (995, 432)), "7.splat": ((1375, 432), (995, 432), (262, 432)),
    },
)  # fmt: skip

PEEKABOO = Layout(
    places={
        "1": (0, 285, 235), "2": (0, 460, 235), "6": (0, 630, 235),  # model, negative prompt
        "3": (290, 0, 230), "4": (290, 300, 230),  # tracks
        "5": (575, 0, 240, 320),
        "7": (905, 0, 210), "8": (905, 420, 210),  # samplers
        "9": (1165, -10, 140), "11": (1165, 110, 165), "10": (1165, 410, 140),  # decoders, boxes
        "12": (1385, 0, 195, 225), "13": (1385, 380, 195, 225),
    },
    groups={"Model": ("1", "2", "6"), "Objects": ("3", "4", "5"), "Draw": ("7", "8"), "Compare": ("9", "10", "11", "12", "13")},
    note=Note((0, 0, 235, 230), PEEKABOO_NOTE),
    ways={
        "5.model": ((262, 226), (548, 226)), "5.clip": ((262, 238), (548, 238)), "4.tracks": ((536, 250), (274, 250)),
        "6.clip": ((262, 412), (-26, 412)),
        "7.negative": ((262, 566), (830, 566), (872, 300)), "8.negative": ((262, 566), (830, 566)),
        "7.latent_image": ((262, 582), (830, 582), (872, 316)), "8.latent_image": ((262, 582), (830, 582)),
        "8.model": ((262, 598), (830, 598)),
        "9.vae": ((262, 614), (830, 614), (872, 360), (1140, 360)), "10.vae": ((262, 614), (830, 614), (872, 360), (1140, 360)),
        "11.tracks": ((548, 520), (830, 520), (872, 345), (1140, 345)),
        "11.image": ((1345, 48), (1145, 48)),
    },
    collapsed=("9", "10"),
)  # fmt: skip

PEEKABOO_CLIP = Layout(
    places={
        "1": (0, 305, 235), "2": (0, 470, 235), "6": (0, 755, 235),  # model, negative prompt
        "3": (290, 0, 230),  # track
        "4": (575, 0, 240, 320),
        "7": (887, 0, 205), "8": (887, 420, 205),  # samplers
        "9": (1143, -10, 140), "11": (1143, 110, 205), "12": (1143, 270, 205),  # decoders, boxes
        "10": (1143, 430, 140), "14": (1143, 550, 205),
        "13": (1366, 0, 182, 330), "15": (1366, 420, 182, 330),
    },
    groups={"Model": ("1", "2", "6"), "Object": ("3", "4"), "Draw": ("7", "8"), "Compare": ("9", "10", "11", "12", "13", "14", "15")},
    note=Note((0, 0, 235, 230), PEEKABOO_CLIP_NOTE),
    ways={
        "4.model": ((262, 226), (548, 226)), "4.clip": ((262, 238), (548, 238)),
        "2.model": ((262, 422), (-26, 422)), "6.clip": ((262, 700), (-26, 700)),
        "7.negative": ((262, 636), (830, 636), (862, 300)), "8.negative": ((262, 636), (830, 636)),
        "7.latent_image": ((262, 652), (830, 652), (862, 316)), "8.latent_image": ((262, 652), (830, 652)),
        "8.model": ((262, 668), (830, 668)),
        "9.vae": ((262, 684), (830, 684), (862, 360), (1118, 360), (1118, 190)),
        "10.vae": ((262, 684), (830, 684), (862, 360), (1118, 360)),
        "11.tracks": ((538, 140), (538, 340), (548, 520), (830, 520), (862, 345), (1118, 345)),
        "11.image": ((1358, 48), (1118, 48)), "12.images": ((1358, 222), (1118, 222)), "14.images": ((1358, 488), (1118, 488)),
        "13.video": ((1358, 180), (1358, 90)),
    },
    collapsed=("9", "10"),
)  # fmt: skip

FREECONTROL_CLIP = Layout(
    places={
        "1": (0, 0, 235), "2": (0, 185, 235), "5": (280, 65, 240), "6": (280, 200, 240),  # model, prompts
        "3": (0, 480, 235), "4": (280, 480, 240),  # condition
        "7": (570, 0, 210), "8": (570, 480, 210),  # samplers
        "9": (850, -10, 140), "10": (850, 35, 140),  # decoders
        "11": (850, 110, 210), "13": (1090, 110, 210), "15": (1330, 110, 210),
        "12": (850, 280, 210, 330), "14": (1090, 280, 210, 330), "16": (1330, 280, 210, 330),
    },
    groups={
        "Model": ("1", "2", "5", "6"), "Condition": ("3", "4"), "Draw": ("7", "8"),
        "Compare": ("9", "10", "11", "12", "13", "14", "15", "16"),
    },
    note=Note((850, 690, 460, 130), FREECONTROL_CLIP_NOTE),
    ways={
        "7.latent_image": ((258, 392), (545, 392)), "8.latent_image": ((258, 392), (545, 392)),
        "4.vae": ((258, 416),), "9.vae": ((258, 416), (815, 416)), "10.vae": ((258, 416), (815, 416)),
        "2.model": ((258, 128), (-26, 128)),
        "11.images": ((258, 865), (815, 865), (815, 660), (815, 450), (815, 250)),
        "13.images": ((1080, 50),), "15.images": ((1320, 50),),
        "12.video": ((1075, 222), (835, 222)), "14.video": ((1315, 232), (1075, 232)), "16.video": ((1555, 222), (1315, 222)),
    },
    collapsed=("9", "10"),
)  # fmt: skip

FREEINIT = Layout(
    places={
        "1": (0, 215, 235), "2": (0, 400, 235), "3": (292, 215, 212), "4": (292, 370, 212),  # model, prompts
        "5": (565, 0, 230), "6": (840, 90, 230),  # samplers
        "7": (840, -10, 140), "8": (1115, 410, 140),  # decoders
        "9": (1115, 0, 207), "11": (1115, 530, 207),
        "10": (1352, 0, 205, 330), "12": (1352, 420, 205, 330),
    },
    groups={"Model": ("1", "2", "3", "4"), "Draw": ("5", "6", "7"), "Compare": ("8", "9", "10", "11", "12")},
    note=Note((0, 0, 504, 110), FREEINIT_NOTE),
    ways={
        "2.model": ((258, 346), (-26, 346)),
        "5.model": ((258, 180), (545, 180)), "6.model": ((258, 180), (545, 180), (545, 372), (815, 372)),
        "6.positive": ((545, 384), (815, 384)), "6.negative": ((545, 396), (815, 396)),
        "5.latent_image": ((258, 545), (545, 545), (545, 260)), "6.latent_image": ((258, 545), (815, 545)),
        "7.vae": ((258, 460), (258, 700), (815, 700), (815, 30)), "8.vae": ((258, 460), (258, 700), (1090, 700)),
        "11.images": ((1337, 470), (1098, 470)), "10.video": ((1337, 60),), "12.video": ((1337, 560),),
    },
    collapsed=("7", "8"),
)  # fmt: skip

COMPOSITION = Layout(
    places={
        "1": (0, 285, 235), "2": (0, 460, 235), "4": (0, 630, 235),  # model, negative prompt
        "3": (290, 0, 250, 420),
        "5": (600, 0, 210), "6": (600, 420, 210),  # samplers
        "7": (860, -10, 140), "8": (860, 410, 140),  # decoders
        "9": (1040, 0, 205, 245), "10": (1040, 420, 205, 245),
        "11": (1300, 0, 270, 610),
    },
    groups={"Model": ("1", "2", "4"), "Objects": ("3",), "Draw": ("5", "6"), "Compare": ("7", "8", "9", "10"), "Look": ("11",)},
    note=Note((0, 0, 235, 230), COMPOSITION_NOTE),
    ways={
        "4.clip": ((262, 412), (-26, 412)),
        "5.negative": ((262, 566), (570, 566), (570, 300)), "6.negative": ((262, 566), (570, 566)),
        "5.latent_image": ((262, 582), (570, 582), (570, 316)), "6.latent_image": ((262, 582), (570, 582)),
        "6.model": ((262, 598), (570, 598)),
        "7.vae": ((262, 464), (262, 800), (835, 800), (835, 30)), "8.vae": ((262, 464), (262, 800), (835, 800), (835, 450)),
        "11.model": ((262, 440), (262, 832), (1272, 832), (1272, 4)),
        "11.clip": ((262, 452), (262, 816), (1272, 816), (1272, 20)),
        "11.vae": ((262, 464), (262, 800), (1272, 800), (1272, 36)),
        "11.image": ((1020, 380), (1272, 380), (1272, 52)),
    },
    collapsed=("7", "8"),
)  # fmt: skip

REGIONS = Layout(
    places={
        "1": (0, 0, 220), "3": (0, 190, 220), "4": (0, 415, 220),  # model, conditions
        "15": (275, 0, 220, 247), "16": (275, 490, 220, 247),
        "5": (540, 0, 250), "6": (540, 490, 250),
        "7": (840, 0, 230), "8": (840, 560, 230), "2": (840, 700, 230),  # prompts, size
        "9": (1115, 0, 210), "10": (1115, 490, 210),  # samplers
        "11": (1375, -10, 140), "12": (1375, 420, 140),  # decoders
        "13": (1375, 75, 205, 245), "14": (1375, 505, 205, 245),
    },
    groups={"Model": ("1",), "Conditions": ("3", "4"), "Show": ("15", "16"), "Layout": ("5", "6"), "Prompt": ("7", "8", "2"),
            "Draw": ("9", "10"), "Compare": ("11", "12", "13", "14")},
    note=Note((0, 650, 220, 280), REGIONS_NOTE),
    ways={
        "5.image": ((248, 290), (515, 290)), "5.mask": ((248, 303), (515, 303)),
        "6.image": ((248, 330), (515, 330)), "6.mask": ((248, 343), (515, 343)),
        "5.model": ((248, 398), (515, 398)), "6.model": ((815, 70), (815, 385), (515, 385)),
        "10.model": ((248, 398), (815, 398), (815, 490), (1092, 490)),
        "5.clip": ((248, 411), (515, 411)), "6.clip": ((248, 411), (515, 411)),
        "7.clip": ((248, 411), (815, 411)), "8.clip": ((248, 411), (815, 411)),
        "5.vae": ((248, 424), (515, 424)), "6.vae": ((248, 424), (515, 424)),
        "11.vae": ((248, 424), (815, 424), (815, 502), (1092, 502), (1092, 400), (1350, 400), (1350, 30)),
        "12.vae": ((248, 424), (815, 424), (815, 502), (1092, 502), (1092, 400), (1350, 400)),
        "9.latent_image": ((1084, 640), (1084, 110)), "10.latent_image": ((1084, 640),),
        "9.negative": ((1100, 540), (1100, 90)), "10.negative": ((1100, 540),), "10.positive": ((1084, 70), (1084, 480)),
        "13.images": ((1560, 18), (1362, 18)), "14.images": ((1560, 448), (1362, 448)),
    },
    collapsed=("11", "12"),
)  # fmt: skip

SELFTEST = Layout(
    places={"1": (0, 0, 260), "2": (0, 190, 260), "3": (330, 0, 460, 860), "4": (860, 0, 420, 480), "5": (860, 580, 420, 280)},
    groups={"Model": ("1", "2"), "Test": ("3",), "Result": ("4", "5")},
    note=Note((0, 420, 260, 330), SELFTEST_NOTE),
    ways={},
)

LARGE = Layout(
    places={
        "1": (0, 0, 235), "7": (0, 190, 235), "6": (0, 370, 235),  # model, latent, negative prompt
        "2": (300, 0, 330, 200),
        "3": (300, 300, 180), "4": (300, 425, 330, 247),
        "5": (690, 0, 230),
        "8": (980, 0, 210),
        "9": (1250, -10, 140), "10": (690, 440, 880, 260),
    },
    groups={"Model": ("1", "6", "7"), "Grid": ("2", "3", "4"), "Guidance": ("5",), "Draw": ("8", "9"), "Look": ("10",)},
    note=Note((0, 530, 235, 290), LARGE_NOTE),
    ways={
        "3.grid": ((645, 250), (288, 250)), "4.images": ((500, 372), (288, 372)),
        "5.model": ((268, -80), (660, -80)),
        "8.negative": ((268, 420), (268, 720), (660, 720), (660, 320), (950, 320), (950, 60)),
        "8.latent_image": ((276, 240), (276, 732), (668, 732), (668, 330), (958, 330), (958, 76)),
        "9.vae": ((260, 80), (260, 744), (652, 744), (652, 345), (1215, 345), (1215, 0)),
        "6.clip": ((262, 330), (-26, 330)),
        "10.images": ((1410, 360), (672, 360)),
    },
    collapsed=("9",),
)  # fmt: skip

LAYOUTS = {
    "freecontrol": FREECONTROL, "freecontrol_checkpoint": CHECKPOINT, "splats": SPLATS, "splats_flight": FLIGHT, "splats_video": VIDEO,
    "peekaboo": PEEKABOO, "peekaboo_clip": PEEKABOO_CLIP, "freecontrol_clip": FREECONTROL_CLIP, "freeinit": FREEINIT,
    "composition": COMPOSITION, "selftest": SELFTEST, "freecontrol_regions": REGIONS, "large_image": LARGE,
}  # fmt: skip
