"""A registry of many images is taken in and compared, killed in the middle: figures with -s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.stand_in import StandIn
from relproxy.model import Capture, Grade, Instance
from tests.integration.conftest import EAST
from tests.integration.walks import CREATED, Ran, Site

# Under `make verify-import` fifty times as many.
IMAGES = 2000
FEW = 200
# What a page of a thousand images may cost; a hundred thousand images cost no more.
MOST_MORE_MIB = 16


def fill(glance: StandIn, count: int, **fields: Any) -> None:
    """Add images of a thousand seconds, many of one second."""
    begun = len(glance.images)
    for n in range(begun, begun + count):
        created = CREATED.replace("12:00:00", f"12:{n % 1000 // 60:02}:{n % 60:02}")
        whole = {"owner": f"project-{n % 100}", "instance_uuid": f"i-{n}", "created_at": created}
        glance.add_image(**{**whole, **fields})


def said(what: str, count: int, *runs: Ran) -> None:
    """Print what was measured."""
    took_s = sum(run.took_s for run in runs)
    peak_mib = max(run.peak_mib for run in runs)
    print(f"\n{what} of {count} images: {took_s:.1f} s, {peak_mib:.1f} MiB at the most", end="")  # noqa: T201


async def killed_and_gone_on_with(site: Site, pages: int, *arguments: str) -> tuple[Ran, Ran]:
    """Kill a command in the middle of its pages, and run it again."""
    killed = await site.run(*arguments, failpoint=f"after-note:{pages // 2}")
    assert killed.status == -9, killed.err
    ran = await site.run(*arguments)
    assert ran.status == 0, ran.err
    return killed, ran


async def test_many_images_are_taken_in_and_compared_and_memory_doesnt_grow_with_them(
    tmp_path: Path, trusting: StandIn, effort: int
) -> None:
    """The measure is the same done with few, in pages of the same size."""
    count, size = IMAGES * effort, FEW if effort == 1 else 1000
    fill(trusting, size)
    small = Site(tmp_path / "small", trusting, "registry")
    few = await small.run("import", "--page", str(size))
    assert few.status == 0, few.err
    few_compared = await small.run("reconcile", "--page", str(size), "--apply")
    said("import", size, few)
    said("reconcile", size, few_compared)

    fill(trusting, count - size)
    site = Site(tmp_path / "large", trusting, "registry")
    pages = count // size
    taken = await killed_and_gone_on_with(site, pages, "import", "--json", "--page", str(size))
    said("import", count, *taken)
    assert taken[1].counts == {"recorded": count}
    records = await site.records()
    assert records.keys() == trusting.images.keys()
    for image_id, record in records.items():
        image = trusting.images[image_id]
        instance = Instance(EAST, image["instance_uuid"])
        assert record.capture == Capture(instance, Grade.IMPORTED)
        assert (record.project, record.created_at) == (image["owner"], image["created_at"])

    # One in a hundred is deleted, and another given away; as many come by another way.
    ids = list(trusting.images)
    for gone, given in zip(ids[::100], ids[1::100], strict=True):
        del trusting.images[gone]
        trusting.images[given]["owner"] = "somebody"
    hundredth = count // 100
    fill(trusting, hundredth)
    compared = await killed_and_gone_on_with(
        site, pages, "reconcile", "--json", "--page", str(size), "--apply"
    )
    said("reconcile", count, *compared)
    assert compared[1].counts == {
        "agrees": count - 2 * hundredth,
        "owner changed": hundredth,
        "buried": hundredth,
        "bypassed": hundredth,
    }
    after = await site.records()
    live = {image_id for image_id, record in after.items() if record.deleted_at is None}
    assert live == trusting.images.keys()
    assert len(after) == count + hundredth
    assert all(after[image_id].project == "somebody" for image_id in ids[1::100])

    for ran, measure in ((taken, few), (compared, few_compared)):
        assert max(r.peak_mib for r in ran) < measure.peak_mib + MOST_MORE_MIB
