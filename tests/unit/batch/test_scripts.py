"""The scripts of jobs: what they ask for, in which order they run, in the words of each batch system."""

import subprocess

import pytest

from tomoseg.batch.scripts import filled, jobs_of, submission, summary_job, write_jobs
from tomoseg.batch.site import Site
from tomoseg.engine import stages_between
from tomoseg.errors import InputError

SCHEDULERS = "slurm", "pbs", "lsf"


def scripts(tmp_path, site, series=0, **stages):
    wanted = stages_between(stages.get("first", "import"), stages.get("last", "export"))
    jobs = jobs_of(site, "tomoseg", ["raw.mrc", "-o", "p.h5"], "p", wanted, series=series)
    if series:
        jobs.append(summary_job(site, "tomoseg", ["--many", "list.csv", "-o", "out"], "p"))
    return [path.read_text() for path in write_jobs(site, jobs, tmp_path / "jobs")]


def directives(text, mark):
    return [line.removeprefix(f"#{mark} ") for line in text.splitlines() if line.startswith(f"#{mark}")]


def site(scheduler, **more):
    return Site.of("site", {"scheduler": scheduler, "cpus": 4, "memory": "8G", "time": "2h30m", **more})


def test_slurm_is_asked_in_its_words(tmp_path):
    asked = {"account": "abc", "partition": "long", "mail": "me@x.org", "options": ["--constraint=a,b", "--nice"]}
    job, _ = scripts(tmp_path, site("slurm", **asked))
    lines = directives(job, "SBATCH")
    for line in ("--cpus-per-task=4", "--mem=8192M", "--time=02:30:00", "--account=abc", "--partition=long"):
        assert line in lines
    for line in ("--mail-user=me@x.org", "--mail-type=END,FAIL", "--constraint=a,b", "--nice", "--requeue"):
        assert line in lines
    assert not any("gres" in line or "array" in line for line in lines)


def test_pbs_is_asked_in_its_words(tmp_path):
    asked = {"account": "abc", "partition": "long", "gpus": 2, "gpu_partition": "gpus", "gpu_cpus": 16}
    first, second, third, _ = scripts(tmp_path, site("pbs", **asked))
    assert "-l select=1:ncpus=4:mem=8192mb" in directives(first, "PBS")
    assert "-l select=1:ncpus=16:mem=8192mb:ngpus=2" in directives(second, "PBS")
    for line in ("-l walltime=02:30:00", "-A abc", "-q long", "-j oe"):
        assert line in directives(third, "PBS")
    assert "-q gpus" in directives(second, "PBS")


def test_lsf_is_asked_in_its_words(tmp_path):
    first, second, *_ = scripts(tmp_path, site("lsf", gpus=1, account="abc", at_once=3), series=7)
    lines = directives(first, "BSUB")
    for line in ('-J "p-align[1-7]%3"', "-n 4", "-W 02:30", "-P abc", '-Q "130"', "-M 8192MB"):
        assert line in lines
    assert '-R "span[hosts=1] rusage[mem=8192MB]"' in lines
    assert '-gpu "num=1"' in directives(second, "BSUB")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_stages_of_jobs_follow_each_other_and_cover_all(tmp_path, scheduler):
    *jobs, _ = scripts(tmp_path, site(scheduler, gpus=1))
    stages = [text.split("--from ")[1].split(" --workers")[0] for text in jobs]
    assert stages == ["import --until align", "reconstruct --until segment", "measure --until export"]


def test_a_part_of_the_pipeline_needs_only_its_jobs(tmp_path):
    *jobs, _ = scripts(tmp_path, site("slurm", gpus=1), first="segment", last="measure")
    stages = [text.split("--from ")[1].split(" --workers")[0] for text in jobs]
    assert stages == ["segment --until segment", "measure --until measure"]


def test_a_job_leaves_before_its_time_limit_and_within_its_memory(tmp_path):
    job, _ = scripts(tmp_path, site("slurm"))
    assert "--stop-before 8700s" in job  # 2 h 30 min less five minutes
    assert "--max-memory 6963M" in job
    assert "--workers 4" in job


@pytest.mark.parametrize(
    ("scheduler", "waits"),
    [
        ("slurm", ["--dependency=afterok:${job1%%;*}", "--dependency=afterok:${job2%%;*}"]),
        ("pbs", ["-W depend=afterok:$job1", "-W depend=afterok:$job2"]),
        ("lsf", ['-w "done($job1)"', '-w "done($job2)"']),
    ],
)
def test_jobs_wait_for_those_before(tmp_path, scheduler, waits):
    *_, submit = scripts(tmp_path, site(scheduler, gpus=1))
    lines = [line for line in submit.splitlines() if line.startswith("job")]
    assert [wait in line for wait, line in zip(waits, lines[1:], strict=True)] == [True, True]
    assert "depend" not in lines[0]


def test_a_series_of_an_array_waits_for_itself_alone(tmp_path):
    for scheduler, word in (("slurm", "aftercorr:"), ("lsf", "done($job1[*])"), ("pbs", "afterany:$job1")):
        *_, submit = scripts(tmp_path / scheduler, site(scheduler, gpus=1), series=3)
        assert word in submit, scheduler


def test_pbs_has_as_many_jobs_as_tries(tmp_path):
    *_, submit = scripts(tmp_path, site("pbs", tries=3))
    assert "for _ in $(seq 2 3); do job1=$(qsub -W depend=afterany:$job1" in submit


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_shell_can_read_every_script(tmp_path, scheduler):
    more = {"gpus": 1, "setup": "module load x\nsource y", "account": "a b"}
    for text in scripts(tmp_path, site(scheduler, **more), series=3):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert "@" not in text.replace("me@x.org", "").replace('"$@"', "").split("set -u")[-1]


def test_names_that_no_batch_system_takes_are_made_harmless(tmp_path):
    jobs = jobs_of(site("slurm"), "tomoseg", ["raw"], 'a b"; rm -rf $HOME', ["import"])
    assert jobs[0].name == "a_b___rm_-rf__HOME-run"


def test_an_own_template_is_used_and_its_unknown_words_are_told(tmp_path):
    own = tmp_path / "own.slurm"
    own.write_text("#!/bin/bash\n# mine @NAME@\n@COMMAND@\n")
    job, _ = scripts(tmp_path, site("slurm", template=own))
    assert job.startswith("#!/bin/bash\n# mine p-run\ntomoseg run")
    with pytest.raises(InputError, match="@NOPE@"):
        filled("@NOPE@", {"NAME": "x"})
    with pytest.raises(InputError, match="no such file"):
        scripts(tmp_path, site("slurm", template=tmp_path / "gone"))


def test_submission_stops_at_a_job_that_is_refused(tmp_path):
    jobs = jobs_of(site("slurm", gpus=1), "tomoseg", ["raw"], "p", stages_between("import", "export"))
    text = submission(site("slurm", gpus=1), jobs, [tmp_path / "1", tmp_path / "2", tmp_path / "3"])
    fake = tmp_path / "sbatch"
    fake.write_text('#!/bin/bash\necho "$@" >> "$LOG"\n[ "${@: -1}" != "%s" ] || exit 1\necho 7\n' % (tmp_path / "2"))
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(tmp_path / "log")}
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stdout == "p-align: job 7\n"
    assert "afterok:7" in (tmp_path / "log").read_text()
