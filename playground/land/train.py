"""The stages that make the land's weights: encoder, autoencoder, and the model that draws what the encoder saw."""

from pathlib import Path

from ...training.loop import Watch
from ..image import models as image
from ..weights import load_compact, save_compact
from . import models, train_encoder, train_model

STEPS = {"land_encoder": 1200, "land_vae": 700, "land_unet": 4000}


def run(stage: str, steps: int, folder: Path, out: Path, seed: int, watch: Watch) -> None:
    """Trains one of STEPS, and writes its file."""
    if stage == "land_encoder":
        save_compact(train_encoder.train(folder, steps, seed, watch), out / models.ENCODER.name)
    elif stage == "land_vae":
        save_compact(train_model.train_autoencoder(folder, steps, seed, watch), out / models.VAE.name)
    else:
        vae, vision = image.build_vae(load_compact(models.VAE)), models.Vision(load_compact(models.ENCODER))
        save_compact(train_model.train(vae, vision, folder, steps, seed, watch), out / models.UNET_FILE.name)
