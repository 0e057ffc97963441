"""What the nodes of consistency models have in common."""

CATEGORY = "FreeSteer/Consistency"
ALIASES = ["consistency model", "lcm", "lcm-lora", "latent consistency", "ccm", "few steps", "4 steps", "turbo", "distillation"]
