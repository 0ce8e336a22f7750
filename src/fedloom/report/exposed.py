"""The section of a report that says what an attacker gets: a table, pictures, and the ROC of membership inference."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .canvas import ALONE, FEDERATED, MUTED, blank, panel, style, svg
from .words import NOTHING

Found = Mapping[str, Any]
LEAST = 1e-4  # left end of the axes of the ROC
NOTE = (
    "Canaries: clients put in or left out by fair coins; the largest ε that their traces in the shared models "
    "prove to be lost, at 95 %. Membership: the part of training rows that LiRA finds while it is wrong about 1 "
    "or 0.1 % of other rows; chance is 1 and 0.1 %. A hidden sum protects updates from the coordinator, not rows "
    "from the model, so those rows do not change. Images: one client, one image, one step, and of all candidates "
    "the one most like the truth: the worst case. What fails here may still succeed elsewhere: this is a smoke "
    "alarm."
)


@dataclass(frozen=True)
class Line:
    """An attack in the table, and what it gets under each protection."""

    name: str
    bare: str
    hidden: str
    private: str


@dataclass(frozen=True)
class Image:
    """A picture as the page shows it: a data URL, what it is, and how near the truth."""

    source: str
    what: str
    figures: str


@dataclass(frozen=True)
class Section:
    """All of it."""

    says: str
    lines: Sequence[Line]
    images: Sequence[Image]
    roc: Any
    note: str = NOTE


def section(found: Found) -> Section:
    """Return the section of what `fedloom audit --report` found."""
    from markupsafe import Markup

    return Section(_says(found), table(found), [_image(one) for one in found["pictures"]], Markup(roc(found)))


def table(found: Found) -> list[Line]:
    """Return what each attack gets under each protection."""
    told = [_canaries(found)]
    if found["members_bare"] is not None:
        told += [_members(found, "0.01", "1 %"), _members(found, "0.001", "0.1 %"), _area(found)]
    if found["pictures"]:
        near = [f"{one['ssim']:.2f}" for one in found["pictures"][2:]]
        told.append(Line("likeness of a recovered image (SSIM)", *near))
    return told


def lines(found: Found) -> list[str]:
    """Return the table in lines, for a terminal."""
    return [
        f"{line.name}: {line.bare} without protection, {line.hidden} with a hidden sum, {line.private} as the app is"
        for line in table(found)
    ]


def _says(found: Found) -> str:
    own = found["private"]
    if own is None:
        return (
            "This app claims no differential privacy of clients: whoever has its models may find traces of single "
            "clients in them."
        )
    if own["broken"]:
        return f"BROKEN: canaries prove a loss of ε = {own['bound']:.2f}, above the {own['epsilon']:.2f} accounted for."
    return (
        f"ε = {own['epsilon']:.2f} is accounted for; canaries prove a loss of at least {own['bound']:.2f}, within it."
    )


def _canaries(found: Found) -> Line:
    bare, own = (found[name] and f"{found[name]['bound']:.2f}" for name in ("bare", "private"))
    told = NOTHING if own is None else f"{own} of {found['private']['epsilon']:.2f} accounted"
    return Line("ε that canaries prove", bare, "the same", told)


def _members(found: Found, rate: str, said: str) -> Line:
    def cell(name: str) -> str:
        return NOTHING if found[name] is None else f"{found[name]['lira'][f'tpr_at_{rate}']:.1%}"

    return Line(f"training rows found, at {said} false", cell("members_bare"), "the same", cell("members_private"))


def _area(found: Found) -> Line:
    def cell(name: str) -> str:
        return NOTHING if found[name] is None else f"{found[name]['lira']['auc']:.2f}"

    return Line("area under that curve (chance 0.50)", cell("members_bare"), "the same", cell("members_private"))


def _image(one: Found) -> Image:
    near = "" if one["ssim"] == 1 and one["psnr"] >= 100 and "image" in one["what"] else _near(one)
    return Image(png(np.asarray(one["image"])), one["what"], near or "the truth")


def _near(one: Found) -> str:
    psnr = "exact" if one["psnr"] >= 100 else f"{one['psnr']:.1f} dB"
    return f"SSIM {one['ssim']:.2f}, {psnr}"


def png(image: Any) -> str:
    """Return a grey picture, values in [0, 1], as a data URL."""
    with style():
        import matplotlib.image

        buffer = io.BytesIO()
        plain: Any = {"Software": None}  # no version, so that equal pictures are equal text
        matplotlib.image.imsave(buffer, np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, format="png", metadata=plain)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def roc(found: Found) -> str:
    """Return true against false positives on logarithmic axes, without protection and with the app's own."""
    drawn = [("members_bare", "without noise", ALONE), ("members_private", "as the app is", FEDERATED)]
    there = [(found[name]["lira"]["roc"], said, colour) for name, said, colour in drawn if found[name] is not None]
    if not there:
        return ""
    with style():
        figure = blank(3.2)
        axes = panel(
            figure.subplots(), title="membership inference: found against false, both logarithmic", grid="both"
        )
        for points, said, colour in there:
            false, true = np.maximum(np.array(points).T, LEAST)
            axes.plot(false, true, color=colour, label=said)
        axes.plot([LEAST, 1], [LEAST, 1], color=MUTED, linestyle=(0, (3, 2)), label="chance")
        axes.set(xscale="log", yscale="log", xlim=(LEAST, 1), ylim=(LEAST, 1), xlabel="false positives", ylabel="true")
        axes.minorticks_off()
        ticks = [10.0**power for power in range(round(math.log10(LEAST)), 1)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.legend(loc="lower right")
        return svg(figure, "roc")
