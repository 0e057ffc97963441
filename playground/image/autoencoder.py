"""The playground's f8 autoencoder: the host's AutoencoderKL at its smallest.

With fewer than 64 channels its norm of 32 groups would take the mean off every channel, and absolute colour with it.
"""

CONFIG = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True,
        "z_channels": 4,
        "resolution": 128,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 64,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}
