"""Scripts for a batch system: one for each job of a run, and one that submits them in their order.

A template is a script with words between @ signs. A line that begins with such a word is left out where the word has no
value, and repeated where it has several.
"""

import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tomoseg import config
from tomoseg.batch.site import Site, seconds
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.runtime import parse_memory
from tomoseg.stages import STAGES

SUBMIT = "submit.sh"
# Stages of the jobs where some have a GPU, and of the only one where none has.
ON_GPU: tuple[tuple[str, str, str], ...] = (
    ("align", "import", "align"),
    ("reconstruct", "reconstruct", "segment"),
    ("measure", "measure", "export"),
)
ALONE = (("run", "import", "export"),)
LEAST_MARGIN, MOST_MARGIN, MARGIN = 20, 300, 0.1  # seconds, and part of the time limit, that are kept to leave in
FOR_LIBRARIES = 0.15  # of the memory of a job
WORD = re.compile(r"@([A-Z_]+)@")
SUMMARY_MINUTES, SUMMARY_MEGABYTES = 30, 2048

Values = Mapping[str, str | list[str]]


@dataclass(frozen=True)
class Job:
    """A job: its name, what it does, its command for a shell, and what it asks for.

    `after` is what it waits for: 'ok', that the one before succeeded, 'each', that the same series of it did, or 'any',
    that it ended.
    """

    name: str
    what: str
    command: str
    resources: Mapping[str, str]
    after: Literal["", "ok", "each", "any"] = ""
    array: int = 0  # number of series, 0 for no array
    tries: int = 1


def jobs_of(
    site: Site, program: str, run: Sequence[str], title: str, wanted: Sequence[str], *, series: int = 0
) -> list[Job]:
    """Return the jobs of a run.

    Parameters
    ----------
    program : the command `tomoseg`, for a shell
    run : its arguments, quoted for a shell, without stages and resources
    title : part of the jobs' names
    wanted : names of stages, in their order
    series : number of series of which each is a task of an array; 0 for a single one
    """
    names = [stage.name for stage in STAGES]
    jobs: list[Job] = []
    for name, start, end in ON_GPU if site.gpus else ALONE:
        stages = [stage for stage in names[names.index(start) : names.index(end) + 1] if stage in wanted]
        if not stages:
            continue
        resources = _resources(site, on_gpu=bool(site.gpus) and name == "reconstruct")
        limit = int(resources["SECONDS"])
        memory = int((1 - FOR_LIBRARIES) * int(resources["MEGABYTES"]))
        arguments = [
            *run,
            *("--from", stages[0], "--until", stages[-1], "--workers", resources["CPUS"]),
            *("--max-memory", f"{memory}M", "--stop-before", f"{limit - _margin(limit)}s", "--progress", "plain"),
        ]
        jobs.append(
            Job(
                name=_job_name(title, name),
                what=f"stages {stages[0]} to {stages[-1]}" if len(stages) > 1 else f"stage {stages[0]}",
                command=" ".join([program, "run", *arguments]),
                resources=resources,
                after=("each" if series > 1 else "ok") if jobs else "",
                array=series if series > 1 else 0,
                tries=site.tries,
            )
        )
    return jobs


def summary_job(site: Site, program: str, run: Sequence[str], title: str) -> Job:
    """Return the job that writes the table of many series when all others have ended."""
    resources = _resources(site, on_gpu=False) | {
        "CPUS": "1",
        "MEGABYTES": str(min(SUMMARY_MEGABYTES, _megabytes(site.memory))),
        "SECONDS": str(min(60 * SUMMARY_MINUTES, seconds(site.time))),
    }
    command = " ".join([program, "run", *run, "--only", "none", "--progress", "plain"])
    return Job(_job_name(title, "table"), "the table of all series", command, resources, "any")


def _job_name(title: str, part: str) -> str:
    """Return a name that every batch system takes."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{title}-{part}")


def _resources(site: Site, *, on_gpu: bool) -> dict[str, str]:
    asked = site.resources(on_gpu=on_gpu)
    return {
        "CPUS": str(asked.cpus),
        "MEGABYTES": str(_megabytes(asked.memory)),
        "SECONDS": str(asked.seconds),
        "PARTITION": asked.partition,
        "GPUS": str(site.gpus) if on_gpu else "",
    }


def _margin(limit: int) -> int:
    """Return how many seconds before its time limit a job is to end."""
    return int(min(max(MARGIN * limit, LEAST_MARGIN), MOST_MARGIN))


def _megabytes(memory: str) -> int:
    return parse_memory(memory) >> 20


def write_jobs(site: Site, jobs: Sequence[Job], folder: Path) -> list[Path]:
    """Write the scripts of jobs, and last the one that submits them; return their paths."""
    template = template_of(site)
    text = template.read_text(encoding="utf-8")
    written = []
    for number, job in enumerate(jobs, 1):
        path = folder / f"{number}-{job.name}.{site.scheduler}"
        _write(path, filled(text, _values(site, job, folder)))
        written.append(path)
    submit = folder / SUBMIT
    _write(submit, submission(site, jobs, written), executable=True)
    return [*written, submit]


def template_of(site: Site) -> Path:
    """Return the script that jobs are made from: the user's, or the one that ships with tomoseg."""
    path = site.template or config.pipelines_folder() / f"submit.{site.scheduler}"
    if not path.is_file():
        raise InputError(f"--template {path}: there is no such file; copy pipelines/submit.{site.scheduler} there.")
    return path


def _write(path: Path, text: str, *, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        if executable:
            temporary.chmod(temporary.stat().st_mode | stat.S_IXUSR)


def _values(site: Site, job: Job, folder: Path) -> dict[str, str | list[str]]:
    limit = int(job.resources["SECONDS"])
    hours, minutes = divmod(limit // 60, 60)
    at_once = f"%{site.at_once}" if site.at_once and job.array else ""
    log = {"slurm": "%A_%a" if job.array else "%j", "lsf": "%J_%I" if job.array else "%J", "pbs": ""}[site.scheduler]
    mail = site.mail if job.name.endswith(("-table", "-run", "-measure")) or not job.array else ""
    mail_type = {"slurm": "END,FAIL", "pbs": "ae", "lsf": ""}[site.scheduler]
    return {
        "NAME": job.name,
        "WHAT": job.what,
        "COMMAND": job.command,
        **job.resources,
        "PBS_GPUS": f":ngpus={job.resources['GPUS']}" if job.resources["GPUS"] else "",
        "CLOCK": f"{hours:02d}:{minutes:02d}:{limit % 60:02d}",
        "HOURS_MINUTES": f"{hours:02d}:{minutes:02d}",
        "LOG": f"{folder}/{job.name}-{log}.log",
        "LOG_FOLDER": str(folder),
        "ARRAY": f"1-{job.array}{at_once}" if job.array else "",
        "LSF_ARRAY": f"[1-{job.array}]{at_once}" if job.array else "",
        "ACCOUNT": site.account,
        "MAIL": mail,
        "MAIL_TYPE": mail_type,
        "OPTION": site.options.splitlines(),
        "SETUP": site.setup.strip(),
        "TRIES": str(job.tries),
        "TERM_SECONDS": str(_margin(limit) // 2),
    }


def filled(template: str, values: Values) -> str:
    r"""Return a template with its words filled in.

    Raises `InputError`: it has a word that is not known.

    Examples
    --------
    >>> print(filled("@MAIL@#SBATCH --mail-user=@MAIL@\n@OPTION@#SBATCH @OPTION@\n@COMMAND@",
    ...              {"MAIL": "", "OPTION": ["-x a", "-y b"], "COMMAND": "run"}))
    #SBATCH -x a
    #SBATCH -y b
    run
    """
    lines = []
    for line in template.split("\n"):
        unknown = [word for word in WORD.findall(line) if word not in values]
        if unknown:
            raise InputError(f"the template holds @{unknown[0]}@; the words are {', '.join(sorted(values))}.")
        condition = re.match(r"@([A-Z_]+)@(?=#)", line)
        if condition is None:
            lines.append(_with(line, values))
            continue
        word = condition[1]
        given = values[word]
        several = given if isinstance(given, list) else [given] if given else []
        lines += [_with(line[condition.end() :], {**values, word: one}) for one in several]
    return "\n".join(lines)


def _with(line: str, values: Values) -> str:
    return WORD.sub(lambda match: str(values[match[1]]), line)


# --- submitting ---


def submission(site: Site, jobs: Sequence[Job], scripts: Sequence[Path]) -> str:
    """Return the script that submits jobs, each after those it waits for, and prints their numbers."""
    one = {"slurm": _with_sbatch, "pbs": _with_qsub, "lsf": _with_bsub}[site.scheduler]
    lines = ["#!/bin/bash", "# Submits the jobs of `tomoseg submit`, each after those it waits for.", "set -eu"]
    for number, (job, path) in enumerate(zip(jobs, scripts, strict=True), 1):
        lines += one(job, shlex.quote(str(path)), number)
        lines.append(f'echo "{job.name}: job $job{number}"')
    return "\n".join(lines) + "\n"


def _with_sbatch(job: Job, script: str, number: int) -> list[str]:
    kind = {"ok": "afterok", "each": "aftercorr", "any": "afterany", "": ""}[job.after]
    needs = f" --kill-on-invalid-dep=yes --dependency={kind}:${{job{number - 1}%%;*}}" if kind else ""
    return [f"job{number}=$(sbatch --parsable{needs} {script})"]


def _with_qsub(job: Job, script: str, number: int) -> list[str]:
    # What waits for an array waits for its end: PBS has no word for the same task of another array.
    kind = {"ok": "afterok", "each": "afterany", "any": "afterany", "": ""}[job.after]
    needs = f" -W depend={kind}:$job{number - 1}" if kind else ""
    lines = [f"job{number}=$(qsub{needs} {script})"]
    if job.tries > 1:
        again = f"job{number}=$(qsub -W depend=afterany:$job{number} {script})"
        lines.append(f"for _ in $(seq 2 {job.tries}); do {again}; done")
    return lines


def _with_bsub(job: Job, script: str, number: int) -> list[str]:
    condition = {"ok": "done($job{})", "each": "done($job{}[*])", "any": "ended($job{})", "": ""}[job.after]
    needs = f' -w "{condition.format(number - 1)}"' if condition else ""
    return [f"job{number}=$(bsub{needs} < {script} | sed -n 's/^Job <\\([0-9]*\\)>.*/\\1/p')"]


def resources_words(jobs: Sequence[Job]) -> list[str]:
    """Return a line for people on each job: its stages and what it asks for."""
    lines = []
    for number, job in enumerate(jobs, 1):
        asked: dict[str, Any] = dict(job.resources)
        gpus = f", {asked['GPUS']} GPU" if asked["GPUS"] else ""
        tasks = f", {job.array} series" if job.array else ""
        hours, minutes = divmod(int(asked["SECONDS"]) // 60, 60)
        lines.append(
            f"  {number}  {job.name}: {job.what}{tasks}; {asked['CPUS']} CPUs{gpus}, {asked['MEGABYTES']} MiB, "
            f"{hours}:{minutes:02d} h"
        )
    return lines
