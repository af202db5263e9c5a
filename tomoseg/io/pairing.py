"""Which images go with which labels: by their names, page by page in stacks, one file or one mask per class."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tomoseg.errors import InputError, shown
from tomoseg.io.image_files import IMAGE_SUFFIXES, LOSSLESS, ImageFile, composed, count_pages, is_lossy
from tomoseg.io.label_values import LabelMap, few

# Words that programs and people add to the name of an image to name its labels; '~' is a space, '-', '_' or nothing.
LABEL_WORDS = (
    *("mask", "masks", "cp~masks", "label", "labels", "labeled", "labelled", "lbl", "seg", "segm", "segmented"),
    *("segmentation", "simple~segmentation", "gt", "ground~truth", "truth", "annot", "annotation", "annotations"),
)
IMAGE_WORDS = ("image", "images", "img", "raw", "data")  # 'data': ilastik's name of an array in an HDF5 file
NAME = "{name}"
_SEPARATOR = r"[\s_.\-]+"
_PAGE = re.compile(r"(.*_page)(\d+)", re.DOTALL)


@dataclass(frozen=True)
class MaskFiles:
    """One mask for each of several classes, which together label a slice; their numbers and files."""

    files: tuple[tuple[int, ImageFile], ...]

    @property
    def name(self) -> str:
        """The names of the files."""
        return " + ".join(file.name for _, file in self.files)

    def __str__(self) -> str:
        return " + ".join(str(file) for _, file in self.files)


@dataclass(frozen=True)
class Pair:
    """A slice and its labels; `label_map` translates labels that are not class numbers."""

    name: str  # of the image without suffix, and of its page in a stack
    image: ImageFile
    labels: ImageFile | MaskFiles
    label_map: LabelMap | None = None

    @property
    def label_files(self) -> list[ImageFile]:
        """The file of the labels, or those of the masks."""
        return [self.labels] if isinstance(self.labels, ImageFile) else [file for _, file in self.labels.files]


@dataclass(frozen=True)
class Pairing:
    """What belongs together, sorted by name; what is wrong; and what is to be told, a sentence each."""

    pairs: list[Pair]
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Files = Mapping[str, Path]  # by name without suffix
Labels = Path | dict[int, Path]  # one file, or one mask by class


def page_name(stem: str, page: int) -> str:
    """Return the name of a slice that is a page of a stack: `stem_page0007`."""
    return f"{stem}_page{page:04d}"


def page_of(name: str) -> tuple[str, int] | None:
    """Return the text before the number of the page in a name that `page_name` made, and the number; else None."""
    match = _PAGE.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def by_stem(source: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the files of a folder with these suffixes by name without suffix, or the one file that is given.

    Raises `InputError` if the folder is missing or holds no such file, or two files share a name.
    """
    if source.is_file():
        return {composed(source.stem): source}
    if not source.is_dir():
        raise InputError(f"the folder {source} does not exist")
    files = sorted(f for f in source.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith("."))
    if not files:
        raise InputError(f"the folder {source} holds no image files ({', '.join(suffixes)})")
    found: dict[str, Path] = {}
    for file in files:
        stem = composed(file.stem)
        if stem in found:
            raise InputError(f"{file} and {found[stem]} have the same name: remove or rename one of them")
        found[stem] = file
    return found


def paired(
    images: Path,
    labels: Path,
    *,
    label_map: LabelMap | None = None,
    class_names: Sequence[str] | None = None,
    label_pattern: str = "",
) -> Pairing:
    """Pair the images and labels of two folders, of one folder that holds both, or two files.

    A label image has the name of its image. Where none has, it may also have one of `LABEL_WORDS` besides, or its name
    follows from that of the image by `label_pattern` ('{name}_mask') and in no other way. With `class_names` there may
    be one mask per class instead, by the name of the image and that of the class, or in one sub-folder per class.

    Raises `InputError`: a folder is missing or holds no images, or the pattern is none.
    """
    if label_pattern and label_pattern.count(NAME) != 1:
        raise InputError(
            f"--label-pattern {shown(label_pattern)}: write {NAME} once, where the name of the image stands in the "
            f"name of its labels, such as {NAME}_mask"
        )
    every = by_stem(images, IMAGE_SUFFIXES)
    search = _Search(images, labels, class_names or (), label_pattern)
    if images.is_file() and labels.is_file():
        found: dict[str, Labels] = {next(iter(every)): labels}
        search.images = every
    else:
        found = search.run(every)
    if label_map is not None and any(isinstance(files, dict) for files in found.values()):
        search.problems.append("--label-map is for label images: in masks, one file per class, all but 0 is the class")
    pairs = [pair for stem in sorted(found) for pair in search.pages(stem, found[stem], label_map)]
    left_out = sorted(search.images.keys() - found.keys() - search.ambiguous_images)
    if left_out and found:
        search.left_out.append(f"{len(left_out)} images have no labels and are left out: {few(left_out)}")
    return Pairing(pairs, search.problems, search.left_out, search.notes)


class _Search:
    """The search for the labels of images, which gathers what is wrong and what is to be told."""

    def __init__(self, images_dir: Path, labels_dir: Path, class_names: Sequence[str], pattern: str) -> None:
        self.images_dir, self.labels_dir, self.pattern = images_dir, labels_dir, pattern
        self.class_names = [composed(name) for name in class_names]
        self.together = labels_dir.is_dir() and images_dir.is_dir() and labels_dir.samefile(images_dir)
        self.images: dict[str, Path] = {}
        self.problems: list[str] = []
        self.left_out: list[str] = []
        self.notes: list[str] = []
        self.ambiguous: set[Path] = set()  # labels that have been reported already
        self.ambiguous_images: set[str] = set()

    def run(self, every: dict[str, Path]) -> dict[str, Labels]:
        """Return the labels of each image that has some, by the name of the image."""
        folders = self._class_folders()
        if self.together:
            labels = self._labels_beside(every)
        elif folders and not _has_files(self.labels_dir):
            labels = {}
        else:
            labels = self._label_files(folders)
        self.images = {stem: file for stem, file in every.items() if not self.together or stem not in labels}
        found: dict[str, Labels] = {}
        if self.pattern:
            rest = self._by_pattern(labels, found)
        else:
            rest = self._by_words(labels, found, LABEL_WORDS, IMAGE_WORDS)
            masks: dict[str, dict[int, Path]] = defaultdict(dict)
            for number, name in enumerate(self.class_names):
                open_images = {stem: file for stem, file in self.images.items() if stem not in found}
                rest = self._masks(number, name, rest, open_images, masks)
                if not labels and number in folders:
                    in_folder = by_stem(folders[number], LOSSLESS)
                    self._orphans(self._masks(number, name, in_folder, open_images, masks, anywhere=True), {})
            found |= self._complete(masks)
        self._orphans(rest, found)
        if self.together and not found and not self.problems:
            self.problems.append(
                f"{self.images_dir} holds {len(every)} images, and none of them has labels beside it, such as "
                f"x_mask.tif for x.tif: {self._advice()}. Of a single stack and its labels, give the two files"
            )
        return found

    def _label_files(self, folders: Mapping[int, Path]) -> dict[str, Path]:
        """Return the files of labels; where there are only folders, say how to make use of them."""
        inside = [d.name for d in sorted(self.labels_dir.iterdir()) if d.is_dir()] if self.labels_dir.is_dir() else []
        if inside and not folders and not _has_files(self.labels_dir):
            raise InputError(
                f"the folder {self.labels_dir} holds no image files, but the folders {few(inside)}: if each holds the "
                "masks of a class, give --class-names with the names of the folders, after that of the background"
            )
        return by_stem(self.labels_dir, LOSSLESS)

    def _class_folders(self) -> dict[int, Path]:
        """Return the sub-folders of labels that are named like classes, by number of the class."""
        if not self.class_names or not self.labels_dir.is_dir() or self.pattern:
            return {}
        by_name = {_plain(folder.name): folder for folder in sorted(self.labels_dir.iterdir()) if folder.is_dir()}
        plain = [_plain(name) for name in self.class_names]
        return {number: by_name[name] for number, name in enumerate(plain) if name in by_name}

    def _labels_beside(self, every: Files) -> dict[str, Path]:
        """Return which files of a folder of images are labels: their names say so, and of an image that is there."""
        if self.pattern:
            by_name = _with_file_names(every)
            named = {self._named_so(stem, by_name) for stem in every}
            return {stem: file for stem, file in every.items() if file in named}
        cores = {_core(stem) for stem in every}
        cores |= {base for core in cores for base in _without(core, IMAGE_WORDS)}
        found = {}
        for stem, file in every.items():
            names = _without(_core(stem), LABEL_WORDS)
            names |= {base for name in self.class_names for base in _mask_bases(stem, name)}
            names |= {shorter for name in names for shorter in _without(name, IMAGE_WORDS)}
            if names & cores or (_core(stem) != stem and _core(stem) in every):
                found[stem] = file
        return found

    def _by_words(
        self, labels: Files, found: dict[str, Labels], words: Sequence[str], image_words: Sequence[str]
    ) -> dict[str, Path]:
        """Pair by equal names first, then by names that differ in a word; return the labels that are left."""
        rest = dict(labels)
        ways: list[tuple[Callable[[str], set[str]], Callable[[str], set[str]]]] = [
            (lambda s: {s}, lambda s: {s}),
            (lambda s: {_core(s)}, lambda s: {_core(s)}),
            (lambda s: _without(_core(s), words), lambda s: {_core(s)}),
            (lambda s: _shorter(_core(s), words, image_words), lambda s: {_core(s)} | _without(_core(s), image_words)),
        ]
        for of_labels, of_image in ways:
            images = {stem: file for stem, file in self.images.items() if stem not in found}
            labelled = {_core(image) for image in found}  # labels named after these are rivals of those found
            free = {stem: file for stem, file in rest.items() if not labelled & of_labels(stem)}
            for image, stem in self._unique(free, images, of_labels, of_image).items():
                found[image] = rest.pop(stem)
        return rest

    def _unique(
        self,
        labels: Files,
        images: Files,
        of_labels: Callable[[str], set[str]],
        of_image: Callable[[str], set[str]],
    ) -> dict[str, str]:
        """Return the name of the labels of each image where one key leads to the other; ambiguity is a problem."""
        images_of, labels_of, wanted = defaultdict(set), defaultdict(set), defaultdict(set)
        for image in images.keys() - self.ambiguous_images:
            for key in of_image(image):
                images_of[key].add(image)
        for stem in (stem for stem, file in labels.items() if file not in self.ambiguous):
            for image in {image for key in of_labels(stem) for image in images_of[key]}:
                labels_of[image].add(stem)
                wanted[stem].add(image)
        rivals = [image for image, stems in sorted(labels_of.items()) if len(stems) > 1]
        shared = [stem for stem, candidates in sorted(wanted.items()) if len(candidates) > 1]
        if rivals:
            files = " and ".join(str(labels[stem]) for stem in sorted(labels_of[rivals[0]]))
            more = f", and so for {len(rivals) - 1} more images" * (len(rivals) > 1)
            self.problems.append(f"{files} may both be the labels of {images[rivals[0]]}{more}: {self._advice()}")
        if shared:
            files = " and ".join(str(images[image]) for image in sorted(wanted[shared[0]]))
            more = f", and so for {len(shared) - 1} more label images" * (len(shared) > 1)
            self.problems.append(f"{labels[shared[0]]} may be the labels of {files}{more}: {self._advice()}")
        self.ambiguous |= {labels[stem] for image in rivals for stem in labels_of[image]} | {labels[s] for s in shared}
        self.ambiguous_images |= set(rivals) | {image for stem in shared for image in wanted[stem]}
        open_images = labels_of.keys() - self.ambiguous_images
        return {image: min(labels_of[image]) for image in sorted(open_images)}

    def _masks(
        self,
        number: int,
        class_name: str,
        files: Files,
        images: Files,
        masks: dict[str, dict[int, Path]],
        *,
        anywhere: bool = False,
    ) -> dict[str, Path]:
        """Take the masks of a class among files, by name of image and class, or of the image alone if `anywhere`.

        Returns the files that are left.
        """
        rest = dict(files)
        keys = {stem: _mask_bases(stem, class_name) for stem in files}
        if anywhere:
            keys = {stem: keys[stem] | _shorter(_core(stem), LABEL_WORDS, ()) for stem in files}
        pairs = self._unique(files, images, lambda s: set(map(_plain, keys[s])), lambda s: {_plain(_core(s))})
        for image, stem in pairs.items():
            masks[image][number] = rest.pop(stem)
        return rest

    def _complete(self, masks: Mapping[str, dict[int, Path]]) -> dict[str, Labels]:
        """Check that every slice has a mask of each class but the first, which may have some for all or none."""
        if not masks:
            return {}
        of_first = any(0 in files for files in masks.values())
        for number, name in list(enumerate(self.class_names))[0 if of_first else 1 :]:
            absent = sorted(image for image, files in masks.items() if number not in files)
            if absent:
                self.problems.append(
                    f"{len(absent)} of {len(masks)} slices have no mask of {name}: {few(absent)}. A slice without that "
                    "class needs a mask, too, of zeros: nobody could tell it from one that was forgotten"
                )
        outside = "not annotated" if of_first else self.class_names[0]
        self.notes.append(f"{len(masks)} slices are labelled by one mask per class; pixels in no mask are {outside}")
        return dict(masks)

    def _named_so(self, image: str, by_name: Files) -> Path | None:
        """Return the labels that the pattern names for an image, among files by name with and without suffix."""
        names = [composed(self.pattern.replace(NAME, name)) for name in (image, _core(image))]
        return next((by_name[name] for name in names if name in by_name), None)

    def _by_pattern(self, labels: Files, found: dict[str, Labels]) -> dict[str, Path]:
        """Pair as the pattern says; return labels whose name is of the pattern, but of no image."""
        of: dict[Path, str] = {}
        by_name = _with_file_names(labels)
        for image in self.images:
            file = self._named_so(image, by_name)
            if file is not None and file in of:
                self.problems.append(
                    f"{file} may be the labels of {self.images[of[file]]} and {self.images[image]}: rename one of them"
                )
            elif file is not None:
                of[file], found[image] = image, file
        if not found:
            self.problems.append(f"no labels in {self.labels_dir} are named {shown(self.pattern)} after an image")
            return {}
        before, after = map(re.escape, self.pattern.split(NAME))
        rest = {stem: file for stem, file in labels.items() if file not in of}
        fits = {s: f for s, f in rest.items() if any(re.fullmatch(f"{before}.+{after}", n) for n in (s, f.name))}
        if others := sorted(rest.keys() - fits.keys()):
            self.left_out.append(f"{len(others)} files are not named {shown(self.pattern)} and left out: {few(others)}")
        return fits

    def _orphans(self, rest: Files, found: Mapping[str, Labels]) -> None:
        """Report labels that belong to no image, or to one that has labels already."""
        labelled = {_core(image): image for image in found}
        lonely, rivals = [], []
        for stem, file in sorted(rest.items()):
            if file in self.ambiguous:
                continue
            images = [labelled[base] for base in _shorter(_core(stem), LABEL_WORDS, ()) if base in labelled]
            other = found[images[0]] if images else None
            if isinstance(other, Path):
                rivals.append(f"{other} and {file} may both be the labels of {self.images[images[0]]}")
            else:
                lonely.append(stem)
        if rivals:
            more = f", and so for {len(rivals) - 1} more label images" * (len(rivals) > 1)
            self.problems.append(f"{rivals[0]}{more}: remove or rename one")
        if lonely:
            self.problems.append(
                f"{len(lonely)} label files in {self.labels_dir} have no image of the same name: {few(lonely)}. An "
                f"image in {self.images_dir} and its labels must share their name, or {self._advice()}"
            )

    def _advice(self) -> str:
        if self.pattern:
            return "rename or remove one of them"
        return (
            "say how labels are named with --label-pattern, such as '{name}_mask', or, where each class has a file of "
            "its own, name the classes with --class-names"
        )

    def pages(self, stem: str, labels: Labels, label_map: LabelMap | None) -> list[Pair]:
        """Return a pair for each page of an image and its labels."""
        image, files = self.images[stem], labels if isinstance(labels, dict) else {-1: labels}
        try:
            if lossy := [file for file in files.values() if is_lossy(file)]:
                self.problems.append(
                    f"{lossy[0]} is compressed as JPEG, which changes values: save labels as TIFF without that, or PNG"
                )
                return []
            n_pages, *of_labels = (count_pages(file) for file in (image, *files.values()))
        except InputError as error:
            self.problems.append(str(error))
            return []
        for file, n in zip(files.values(), of_labels, strict=True):
            if n != n_pages:
                self.problems.append(
                    f"{image} holds {n_pages} page{'s' * (n_pages > 1)}, its labels {file} {n}: every page of a stack "
                    "is a slice, and the labels of all are needed"
                )
                return []
        pairs = []
        for page in range(n_pages):
            number = page if n_pages > 1 else None
            name = stem if number is None else page_name(stem, page)
            pages = {n: ImageFile(file, number) for n, file in files.items()}
            of = MaskFiles(tuple(sorted(pages.items()))) if isinstance(labels, dict) else pages[-1]
            pairs.append(Pair(name, ImageFile(image, number), of, label_map))
        return pairs


def images_by_name(source: Path) -> dict[str, ImageFile]:
    """Return every image of a folder, or of a file, by name, stacks page by page; see `by_stem`."""
    found = {}
    for stem, file in by_stem(source, IMAGE_SUFFIXES).items():
        try:
            n_pages = count_pages(file)
        except InputError:  # not of the slices that are used, or reading it will say why
            n_pages = 1
        if n_pages == 1:
            found[stem] = ImageFile(file)
        else:
            found |= {page_name(stem, page): ImageFile(file, page) for page in range(n_pages)}
    return found


def _has_files(folder: Path) -> bool:
    return any(f.suffix.lower() in LOSSLESS and not f.name.startswith(".") for f in folder.iterdir() if f.is_file())


def _core(stem: str) -> str:
    """Return a name without the '.ome' of 'x.ome.tif'."""
    return stem[:-4] if stem.casefold().endswith(".ome") and len(stem) > 4 else stem


def _with_file_names(files: Files) -> dict[str, Path]:
    """Return files by name without and with suffix."""
    return {composed(file.name): file for file in files.values()} | dict(files)


def _mask_bases(stem: str, class_name: str) -> set[str]:
    """Return what is left of the name of a mask without that of its class, and without a word for labels."""
    core = _core(stem)
    bases = {base for name in {core} | _without(core, LABEL_WORDS) for base in _without(name, (class_name,))}
    return bases | {base for name in bases for base in _without(name, LABEL_WORDS)}


def _plain(name: str) -> str:
    """Return a name as it is compared with that of a class: without case, separators as '_'."""
    return re.sub(_SEPARATOR, "_", composed(name).strip().casefold())


def _without(name: str, words: Iterable[str]) -> set[str]:
    """Return what is left of a name without one of some words at its end, or at its begin."""
    found = set()
    for word in words:
        any_space = re.sub(r"[\s_~-]+", "~", word)
        pattern = r"[\s_\-]*".join(map(re.escape, any_space.split("~")))
        for whole in (rf"(.+?){_SEPARATOR}{pattern}", rf"{pattern}{_SEPARATOR}(.+)"):
            if match := re.fullmatch(whole, name, re.IGNORECASE | re.DOTALL):
                found.add(match[1])
    return found


def _shorter(name: str, words: Sequence[str], image_words: Sequence[str]) -> set[str]:
    """Return a name, and what is left of it without words of labels, and then of images."""
    found = {name} | _without(name, words)
    return found | {shorter for each in found for shorter in _without(each, image_words)}
