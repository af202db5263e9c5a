"""What a cluster is started with: jobs for each batch system, and a warning where anybody could use it."""

import pytest

from tomoseg.batch.site import Site
from tomoseg.cluster import start
from tomoseg.progress import Progress
from tomoseg.runtime import Runtime

jobqueue = pytest.importorskip("dask_jobqueue")


def script(scheduler, **values):
    """Return the script of a job with workers."""
    site = Site.of("site", {"scheduler": scheduler, "interface": "lo", "cpus": 16, "memory": "64G", **values})
    classes = {"slurm": "slurm.SLURMJob", "pbs": "pbs.PBSJob", "lsf": "lsf.LSFJob"}
    module, name = classes[scheduler].split(".")
    options = start.job_options(site)
    options.pop("scheduler_options")
    options.pop("silence_logs")
    made = getattr(getattr(jobqueue, module), name)(scheduler="tcp://10.0.0.1:8786", name="w", **options)
    return made.job_script()


def test_slurm():
    text = script("slurm", account="abc", partition="compute", time="90m", options="--constraint=x")
    for line in ("-A abc", "-p compute", "-t 01:30:00", "--constraint=x", "--cpus-per-task=16"):
        assert f"#SBATCH {line}" in text, line
    assert "export DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE=False" in text
    assert "--interface lo" in text
    assert "--nthreads 16" in text


def test_a_worker_for_each_gpu():
    text = script("slurm", gpus=4, gpu_partition="gpu", gpu_cpus=32)
    assert "#SBATCH --gpus-per-node=4" in text
    assert "#SBATCH -p gpu" in text
    assert "--nworkers 4" in text
    assert "--nthreads 8" in text


def test_pbs():
    text = script("pbs", account="abc", partition="big", gpus=2)
    assert "#PBS -l select=1:ncpus=16:mem=64GB:ngpus=2" in text
    assert "#PBS -q big" in text
    assert "#PBS -A abc" in text
    assert "#PBS -l walltime=04:00:00" in text


def test_lsf():
    text = script("lsf", account="abc", partition="big", gpus=1, time="2h")
    assert '#BSUB -P "abc"' in text
    assert "#BSUB -q big" in text
    assert "#BSUB -W 02:00" in text
    assert "#BSUB -gpu num=1" in text


def test_an_environment_of_its_own():
    text = script("slurm", setup="module load cuda\nsource ~/venv/bin/activate")
    assert (
        text.index("module load cuda") < text.index("source ~/venv/bin/activate") < text.index("python -m distributed")
    )


class Told(Progress):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tls://10.0.0.1:8786", False),
        ("tcp://10.0.0.1:8786", True),
        ("ucx://ib0:8786", True),
    ],
)
def test_a_scheduler_that_anybody_could_use_is_warned_of(address, is_open):
    told = Told()
    start._warn_if_open(address, Runtime(progress=told))
    assert any("can run programs as you" in line for line in told.lines) == is_open
