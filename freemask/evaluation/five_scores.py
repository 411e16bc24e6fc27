"""Lists the metrics of FiVE-Bench with their columns, whose names begin with `five_`.

Those that need a model appear if it is given. The last seven come from other programs (`hooks`).
"""

from __future__ import annotations

from collections.abc import Callable

from freemask.evaluation import five_metrics
from freemask.evaluation.edited_sample import EditedSample
from freemask.evaluation.metric import Metric


def _on_frames(measure: Callable[..., float], model: str = "") -> Callable[[EditedSample], float]:
    """Returns a metric of an edited sample.

    measure: a function of `five_metrics`.
    model: the attribute of the sample that is its second argument, if it has one.
    """

    def measured(edit: EditedSample) -> float:
        return measure(edit.five, *([getattr(edit, model)] if model else []))

    return measured


def _hooked(column: str) -> Callable[[EditedSample], float]:
    """Returns a metric that another program measured; nan if it did not."""

    def measured(edit: EditedSample) -> float:
        return (edit.hooked or {}).get(column, float("nan"))

    return measured


ONE, TWO = "{:.1f}", "{:.2f}"
FRAMES, HOOK = ("five",), ("hooked",)
DINO, CLIP, SQUEEZE = ("five", "dino"), ("five", "embedder"), ("five", "lpips_squeeze")
STRUCTURE = _on_frames(five_metrics.structure_distance, "dino")
PSNR, MSE = _on_frames(five_metrics.psnr_unedited), _on_frames(five_metrics.mse_unedited)
SSIM = _on_frames(five_metrics.ssim_unedited)
LPIPS = _on_frames(five_metrics.lpips_unedited, "lpips_squeeze")
WHOLE = _on_frames(five_metrics.clip_score, "embedder")
EDITED = _on_frames(five_metrics.clip_score_edited, "embedder")
QUALITY = _on_frames(five_metrics.niqe, "niqe")
FIVE_METRICS = {
    "five_structure": Metric(STRUCTURE, "FiVE structure x 1000", TWO, DINO, False),
    "five_psnr": Metric(PSNR, "FiVE PSNR unedited", TWO, FRAMES),
    "five_lpips": Metric(LPIPS, "FiVE LPIPS unedited x 1000", ONE, SQUEEZE, False),
    "five_mse": Metric(MSE, "FiVE MSE unedited x 10000", ONE, FRAMES, False),
    "five_ssim": Metric(SSIM, "FiVE SSIM unedited x 100", TWO, FRAMES),
    "five_clip": Metric(WHOLE, "FiVE CLIP", TWO, CLIP),
    "five_clip_edit": Metric(EDITED, "FiVE CLIP edited", TWO, CLIP),
    "five_niqe": Metric(QUALITY, "FiVE NIQE", TWO, ("five", "niqe"), False),
    "five_motion": Metric(_hooked("five_motion"), "FiVE motion x 100", ONE, HOOK),
    "five_motion_edit": Metric(_hooked("five_motion_edit"), "FiVE motion edited x 100", ONE, HOOK),
    "five_yes_no": Metric(_hooked("five_yes_no"), "FiVE YN %", ONE, HOOK),
    "five_choice": Metric(_hooked("five_choice"), "FiVE MC %", ONE, HOOK),
    "five_union": Metric(_hooked("five_union"), "FiVE union %", ONE, HOOK),
    "five_both": Metric(_hooked("five_both"), "FiVE intersection %", ONE, HOOK),
    "five_acc": Metric(_hooked("five_acc"), "FiVE-Acc %", ONE, HOOK),
}
