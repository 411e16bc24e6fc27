"""What another package can bring to freemask: `pip install examples/plugin` makes all of it work.

freemask edit --editor half_zeroscope backend=checked mask.policy=middle ...
freemask evaluate ...                                  # has a column "brightness"
"""

from dataclasses import dataclass

from diffusers import UNet3DConditionModel

from freemask.editors import UNetEditor
from freemask.evaluation.scores import Metric
from freemask.kernels import reference, torch_backend
from freemask.kernels.backends import Backend, runs_everywhere
from freemask.masks.policies import Choice, MaskPolicy


@dataclass
class Options:
    """scale: factor on the noise that the network predicts."""

    scale: float = 1.0


class HalfZeroscope(UNetEditor):
    """An editor: which networks it loads, and how it calls them."""

    name, architectures, Options = "half_zeroscope", ("UNet3DConditionModel",), Options

    @classmethod
    def load_backbone(cls, checkpoint, options):
        return checkpoint.model(UNet3DConditionModel)

    def predict(self, latents, timestep, text):
        noise = self.backbone(latents.to(self.dtype), timestep, text.to(self.dtype)).sample
        return self.options.scale * noise


# a kernel: where it runs, blended attention and word attention
CHECKED = Backend(runs_everywhere, torch_backend.blended_attention, reference.word_attention)
# a metric: its function, heading, format, and what it needs of an edit
BRIGHTNESS = Metric(lambda edit: edit.video.frames.mean(), "brightness", "{:.0f}")


def middle(candidates):
    """A mask policy: the cells of all sites in the middle of the run, for one mask."""
    return Choice((candidates.at(len(candidates.timesteps) // 2),), "the middle of the run")


MIDDLE = MaskPolicy(middle, needs_codebook=False)
