"""Phrases in prompts, as the host's own tokenizers split them."""

import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import comfy.text_encoders.hunyuan_video
import comfy.text_encoders.lt
import comfy.text_encoders.qwen_image
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.z_image
import pytest
import torch
from freesteer.host.models.prompt_tokens import PhraseError, locate
from freesteer.playground.image import models
from freesteer.playground.text import _tokenizer


class Clip:
    """The part of the host's CLIP that splits prompts."""

    def __init__(self, tokenizer, length=lambda tokens: 0):
        self.tokenizer, self.counted = tokenizer, length

    def tokenize(self, text):
        return self.tokenizer.tokenize_with_weights(text)

    def length(self, text):
        """Tokens of an encoded prompt."""
        return self.counted(self.tokenize(text))


TOKENIZERS = {
    "SD 1.5": (comfy.sd1_clip.SD1Tokenizer, lambda tokens: 77 * len(tokens["l"])),
    "SDXL": (comfy.sdxl_clip.SDXLTokenizer, lambda tokens: 77 * len(tokens["l"])),
    "Flux": (comfy.text_encoders.flux.FluxTokenizer, lambda tokens: len(tokens["t5xxl"][0])),
    "SD 3": (comfy.text_encoders.sd3_clip.SD3Tokenizer, lambda tokens: 77 + len(tokens["t5xxl"][0])),
    "LTX Video": (comfy.text_encoders.lt.LTXVT5Tokenizer, lambda tokens: len(tokens["t5xxl"][0])),
    "Qwen-Image": (comfy.text_encoders.qwen_image.QwenImageTokenizer, lambda tokens: len(tokens["qwen25_7b"][0]) - 34),
    "Z-Image": (comfy.text_encoders.z_image.ZImageTokenizer, lambda tokens: len(tokens["qwen3_4b"][0])),
    "playground": (lambda: _tokenizer(models.LANGUAGE), lambda tokens: len(tokens["playground"][0])),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def clip(request):
    make, length = TOKENIZERS[request.param]
    return Clip(make(), length)


def found(clip, text, *phrases):
    return locate(clip, text, phrases, clip.length(text))


def test_words_are_found_in_order_and_each_time(clip):
    text = "a red ball and a blue ball and a red ball on grass"
    marks = found(clip, text, "red ball", "blue ball", "ball")
    red, blue, ball = marks.phrases
    assert int(ball.sum()) * 2 == int(red.sum() + blue.sum())  # each is a colour and a ball
    assert not (red & blue).any()
    assert (ball & (red | blue)).sum() == ball.sum()
    assert marks.phrases.shape[1] == len(marks.special) == clip.length(text)


@pytest.mark.parametrize("text", ["a beautiful man and a woman", "a gift for a man and a woman"])
def test_tokens_of_one_encoder_are_not_taken_for_those_of_another(text):
    """T5 has CLIP's number of "man" for "beautiful", and that of "boy" for "gift"."""
    make, length = TOKENIZERS["Flux"]
    clip = Clip(make(), length)
    for phrase in ("man", "boy"):
        marks = found(clip, text.replace("man and", f"{phrase} and"), phrase)
        assert marks.phrases.sum() == 1


def test_a_phrase_at_the_beginning_is_found_as_in_the_middle(clip):
    first, later = found(clip, "red ball on grass", "red ball"), found(clip, "on grass a red ball", "red ball")
    assert first.phrases.sum() == later.phrases.sum() > 1


def test_specials_are_what_no_word_stands_for(clip):
    marks = found(clip, "red ball", "red ball")
    assert torch.equal(marks.special, ~marks.phrases[0])
    assert marks.special[0] or marks.phrases[0, 0]


def test_weights_do_not_matter(clip):
    plain, weighted = found(clip, "a red ball on grass", "red ball"), found(clip, "a (red ball:1.3) on grass", "red ball")
    assert plain.phrases.sum() == weighted.phrases.sum()  # some tokenizers have no weights, and take them for words


@pytest.mark.parametrize("phrase", ["green ball", "ball red", "red cube"])
def test_what_the_prompt_does_not_say_is_named(clip, phrase):
    with pytest.raises(PhraseError, match=f"does not say '{phrase}'"):
        found(clip, "a red ball and a blue star on grass", phrase)


def test_a_long_prompt_of_several_chunks():
    clip = Clip(comfy.sd1_clip.SD1Tokenizer())
    text = "grass " * 160 + "a red ball"
    marks = locate(clip, text, ["red ball"], 3 * 77)
    assert marks.phrases.nonzero()[:, 1].min() > 2 * 77 and marks.phrases.sum() == 2
    assert marks.special[[0, 76, 77, 153, 154, 230]].all() and marks.special.sum() == 231 - 163


def test_clip_beside_a_longer_encoder_with_a_template_is_not_counted():
    """Hunyuan Video: 77 tokens of CLIP, and of Llama those of the prompt after a template, up to the end of turn."""
    clip = Clip(comfy.text_encoders.hunyuan_video.HunyuanVideoTokenizer())
    marks = locate(clip, "ball", ["ball"], 2)
    assert marks.phrases.tolist() == [[True, False]] and marks.special.tolist() == [False, True]
    long = "ball " * 90
    tokens = len(clip.tokenize(long)["llama"][0]) - len(clip.tokenize("")["llama"][0])
    assert locate(clip, long, ["ball"], tokens + 1).phrases.shape == (1, tokens + 1)


def test_an_encoder_of_another_length_is_refused():
    with pytest.raises(PhraseError, match="phrases cannot be placed"):
        locate(Clip(comfy.sd1_clip.SD1Tokenizer()), "a red ball", ["red ball"], 99)
