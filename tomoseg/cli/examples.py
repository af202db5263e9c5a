"""Examples of each command, shown at the end of its help."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "tomoseg run HAADF.mrc --angles HAADF.rawtlt -o needle.h5",
        "tomoseg run needle.h5 --set reconstruct.iterations=60",
        "tomoseg run --many series/*.mrc -o results --pipeline catalyst",
    ),
    "import": ("tomoseg import HAADF.mrc --angles=-68:68:2 --pixel-size 0.25 -o catalyst.h5",),
    "align": ("tomoseg align catalyst.h5", "tomoseg align catalyst.h5 --tilt-axis-angle 87.3"),
    "reconstruct": (
        "tomoseg reconstruct catalyst.h5 --iterations 40",
        "tomoseg reconstruct catalyst.h5 --method tv --binning 2",
    ),
    "segment": (
        "tomoseg segment catalyst.h5 --model gamma-alumina-pt",
        "tomoseg segment catalyst.h5 --method otsu --classes 3",
    ),
    "measure": (
        "tomoseg measure catalyst.h5 --uncertainty",
        "tomoseg measure catalyst.h5 --particle-class Pt --support-density-g-cm3 gamma-alumina",
    ),
    "export": ("tomoseg export catalyst.h5 --formats vti,vtp,csv", "tomoseg export catalyst.h5 --formats all"),
    "submit": ("tomoseg submit series/*.mrc -o results --scheduler slurm",),
    "inspect": ("tomoseg inspect HAADF.mrc --angles HAADF.rawtlt",),
    "check": ("tomoseg check HAADF.mrc --angles HAADF.rawtlt", "tomoseg check my.yaml catalyst.h5 --json"),
    "status": ("tomoseg status catalyst.h5", "tomoseg status catalyst.h5 --set reconstruct.iterations=60"),
    "report": ("tomoseg report catalyst.h5 -o catalyst.html --figures plots",),
    "compare": ("tomoseg compare fresh.h5 aged.h5 -o compare.html",),
    "try": (
        "tomoseg try catalyst.h5 --set reconstruct.iterations=10,30,60 --slice 97",
        "tomoseg try catalyst.h5 --set segment.method=otsu --set segment.smooth=0,0.5,1",
    ),
    "movie": ("tomoseg movie catalyst.h5 -o turn.mp4", "tomoseg movie catalyst.h5 -o turn.gif --size 400"),
    "train": (
        "tomoseg train catalyst.h5 -o own.keras",
        "tomoseg train images labels -o own.keras --preset small",
    ),
    "evaluate": ("tomoseg evaluate own.keras images labels --held-out --plots figures",),
    "images": ("tomoseg images *.tif -o sizes",),
    "simulate": ("tomoseg simulate -o raw.mrc --truth truth.h5 --size 192 --dose 400",),
}


def epilog(name: str) -> str | None:
    """Return the examples of a command as they end its help; None where it has none."""
    if name not in EXAMPLES:
        return None
    title = "Examples:" if len(EXAMPLES[name]) > 1 else "Example:"
    return "\b\n" + "\n".join([title, *(f"  {line}" for line in EXAMPLES[name])])
